//! Whether all software reads a path alike.
//!
//! A path that could lead a backend outside a prefix that was checked has no place in a route or behind one (D3).
//! Plain text; knows no route.

/// Encoded slash, backslash and dot.
const ENCODED: [&str; 3] = ["%2f", "%5c", "%2e"];

/// Why a path, which begins with `/`, may be read in two ways, as a clause; `None` if it is plain.
#[must_use]
pub fn ambiguity(path: &str) -> Option<&'static str> {
    let lower = path.to_ascii_lowercase();
    if path.contains('\\') || ENCODED.iter().any(|code| lower.contains(code)) {
        return Some("has a backslash or an encoded slash, backslash or dot");
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => return Some("has a dot segment"),
            "" if segments.peek().is_some() => return Some("has an empty segment"),
            _ => {}
        }
    }
    None
}

/// Whether a path is plain.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    ambiguity(path).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_be_read_twice_are_not_plain() {
        for path in ["/a/../b", "/a/./b", "/a//b", "/a\\b", "/a%2Fb", "/a/%2e%2e/b", "/a%5cb", "//"]
        {
            assert!(!is_plain(path), "{path}");
        }
        for path in ["/", "/mcp", "/mcp/", "/a%20b", "/.well-known/agent-card.json"] {
            assert!(is_plain(path), "{path}");
        }
    }
}
