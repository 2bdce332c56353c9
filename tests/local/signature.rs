//! The signature server as a process: what callers get and what others do not, whatever they send.

mod hostile;
mod limits;
mod operation;
mod policies;
mod secrets;
mod server;
mod upload;
