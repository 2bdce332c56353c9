//! What an operator sees of the running program: its log, and what the service manager is told.

pub mod logging;
pub mod service_manager;
