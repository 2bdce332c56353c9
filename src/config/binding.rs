//! Whether a binding key of a topic exchange matches every routing key that a template can make.

/// Whether `binding` matches every key of `template`. RabbitMQ splits both at dots; `*` stands for one word,
/// `#` for any number of them. A placeholder in a word of the template can be any text: data adds no dot to a
/// key.
pub(super) fn reaches(binding: &str, template: &str) -> bool {
    let pattern: Vec<&str> = binding.split('.').collect();
    let words: Vec<&str> = template.split('.').collect();
    // Whether the rest of the pattern matches the rest of the words. The table goes by the number of words
    // that are left, beginning with no pattern.
    let mut rest: Vec<bool> = (0..=words.len()).map(|at| at == words.len()).collect();
    for word in pattern.iter().rev() {
        let mut longer = vec![false; words.len() + 1];
        for at in (0..=words.len()).rev() {
            longer[at] = match *word {
                "#" => rest[at] || longer.get(at + 1).copied().unwrap_or(false),
                "*" => rest.get(at + 1).copied().unwrap_or(false),
                word => {
                    words.get(at).is_some_and(|have| *have == word && !have.contains('{')) && rest[at + 1]
                }
            };
        }
        rest = longer;
    }
    rest[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_key_reaches_what_it_matches_whatever_the_data_says() {
        for (binding, template, expected) in [
            ("vod.#", "vod.{sub_app_id}.{event_type}", true),
            ("vod.#", "vod", true),
            ("vod.#", "vods.{event_type}", false),
            ("vod.#", "vod{event_type}", false),
            ("vod.#", "{event_type}", false),
            ("vod.#", "media.{event_type}", false),
            ("media.*", "media.{event_type}", true),
            ("media.*", "media.x-{event_type}", true),
            ("media.*", "media.{event_type}.{file_id}", false),
            ("media.*.*", "media.{event_type}", false),
            ("*.{event_type}", "media.{event_type}", false),
            ("media.NewFileUpload", "media.{event_type}", false),
            ("media.all", "media.all", true),
            ("#", "{event_type}", true),
            ("#.end", "a.{event_type}.end", true),
            ("#.end", "a.{event_type}", false),
            ("#.*", "a", true),
            ("a.#.#.b", "a.b", true),
            ("*", "a.b", false),
        ] {
            assert_eq!(reaches(binding, template), expected, "{binding} {template}");
        }
    }
}
