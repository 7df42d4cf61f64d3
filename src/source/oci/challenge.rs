//! `WWW-Authenticate`: what a registry wants to see (RFC 9110 section 11.6.1; distribution specification, "token").
//! Pure.

/// One challenge of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from the server `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        /// The token that was shown is good, and not for this.
        insufficient: bool,
    },
}

/// The challenges of a header's value; schemes that are not known here are left out, and so is what comes after
/// nonsense.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut scanner = Scanner(header);
    let mut found = Vec::new();
    while let Some(scheme) = scanner.scheme() {
        let parameters = scanner.parameters();
        let get = |name: &str| {
            let named = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            named.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = get("realm")
        {
            let insufficient = get("error").is_some_and(|error| error == "insufficient_scope");
            found.push(Challenge::Bearer { realm, service: get("service"), insufficient });
        }
    }
    found
}

struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    fn skip(&mut self, characters: &[char]) {
        self.0 = self.0.trim_start_matches(characters);
    }

    fn token(&mut self) -> Option<&'a str> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    fn scheme(&mut self) -> Option<&'a str> {
        self.skip(&[' ', '\t', ',']);
        self.token()
    }

    /// The parameters up to the next scheme, which is a word that no `=` follows.
    fn parameters(&mut self) -> Vec<(&'a str, String)> {
        let mut parameters = Vec::new();
        loop {
            let before = self.0;
            self.skip(&[' ', '\t', ',']);
            let name = self.token();
            self.skip(&[' ', '\t']);
            let (Some(name), Some(rest)) = (name, self.0.strip_prefix('=')) else {
                self.0 = before;
                return parameters;
            };
            self.0 = rest;
            self.skip(&[' ', '\t']);
            let Some(value) = self.value() else {
                self.0 = "";
                return parameters;
            };
            parameters.push((name, value));
        }
    }

    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.0.strip_prefix('"') else {
            return self.token().map(str::to_owned);
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.0 = &quoted[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                _ => value.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned), insufficient: false }
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        for (header, challenges) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#,
                vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"))],
            ),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("Basic", vec![Challenge::Basic]),
            (r#"bearer realm=https, service="a\"b,c" , error="x""#, vec![bearer("https", Some("a\"b,c"))]),
            (r#"Basic realm="x", Bearer realm="https://t""#, vec![Challenge::Basic, bearer("https://t", None)]),
            (r#"Negotiate, Basic realm="x""#, vec![Challenge::Basic]),
            (r#"Bearer service="s""#, vec![]),
            (r#"Bearer realm="""#, vec![]),
            (r#"Bearer realm="https://never ends"#, vec![]),
            ("", vec![]),
            ("=,\"", vec![]),
        ] {
            assert_eq!(parse(header), challenges, "{header}");
        }
    }

    #[test]
    fn a_token_that_is_not_enough_is_told_from_a_bad_one() {
        let insufficient = |error: &str| match parse(&format!(r#"Bearer realm="https://t",error="{error}""#)).remove(0)
        {
            Challenge::Bearer { insufficient, .. } => insufficient,
            Challenge::Basic => panic!("it is Bearer"),
        };
        assert!(insufficient("insufficient_scope") && !insufficient("invalid_token"));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic_or_hang(header in "([a-zA-Z=, \"\\\\é]|Bearer |realm=\"){0,40}") {
            prop_assert!(parse(&header).len() <= header.len());
        }
    }
}
