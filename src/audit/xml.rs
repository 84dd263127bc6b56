//! XML, as much as a message needs: elements, attributes, text.

/// An element under construction.
pub struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// An empty one.
    pub fn new(name: &'static str) -> Element {
        Element { name, attributes: Vec::new(), text: String::new(), children: Vec::new() }
    }

    /// With an attribute.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Element {
        self.attributes.push((name, value.into()));
        self
    }

    /// With an attribute, unless its value is empty.
    pub fn with_some(self, name: &'static str, value: &str) -> Element {
        if value.is_empty() { self } else { self.with(name, value) }
    }

    /// With text.
    pub fn text(mut self, text: impl Into<String>) -> Element {
        self.text = text.into();
        self
    }

    /// With another one in it, after those that are there.
    pub fn child(mut self, child: Element) -> Element {
        self.children.push(child);
        self
    }

    /// With others in it.
    pub fn children(mut self, children: impl IntoIterator<Item = Element>) -> Element {
        self.children.extend(children);
        self
    }

    /// The document.
    pub fn document(&self) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        out.push('<');
        out.push_str(self.name);
        for (name, value) in &self.attributes {
            out.push(' ');
            out.push_str(name);
            out.push_str("=\"");
            escape(value, out);
            out.push('"');
        }
        if self.text.is_empty() && self.children.is_empty() {
            return out.push_str("/>");
        }
        out.push('>');
        escape(&self.text, out);
        self.children.iter().for_each(|child| child.write(out));
        out.push_str("</");
        out.push_str(self.name);
        out.push('>');
    }
}

/// Text as it may stand in an attribute or between tags (XML 1.0, sections 2.2 and 2.4). White space but for blanks is a reference, or
/// a reader would normalise it; what XML has no place for, such as a control character in a patient's name, is replaced.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push_str("&#9;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\0'..' ' | '\u{7F}'..='\u{9F}' | '\u{FFFE}' | '\u{FFFF}' => out.push('\u{FFFD}'),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_is_escaped() {
        let inner = Element::new("b").with("x", "\"<&>'\t\n\r").with_some("y", "").text("a<b & c>d");
        let outer = Element::new("a").child(inner).children([Element::new("c").with("é", "\u{0}\u{1F}\u{7F}\u{FFFE}Ä日")]);
        assert_eq!(
            outer.document(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><a><b x=\"&quot;&lt;&amp;&gt;'&#9;&#10;&#13;\">a&lt;b &amp; c&gt;d</b>\
             <c é=\"\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}Ä日\"/></a>"
        );
    }
}
