//! The elements of a JSON array, each as the bytes it is written with, in memory bounded by the largest one that is kept.

use std::io::{self, BufRead};

use super::{EXCERPT_BYTES, Line};

/// Reads elements one after the other.
pub(super) struct Elements<R> {
    reader: R,
    most: u64,
    /// Bytes read.
    at: u64,
    /// Elements read.
    count: u64,
}

/// Why there are no more elements, before the array ended.
#[derive(Debug)]
pub(super) enum Broken {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// It is no whole array; says where.
    Malformed(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl<R: BufRead> Elements<R> {
    /// Of a reader that stands at the opening bracket; elements of more than `most` bytes are cut to an excerpt.
    pub(super) fn new(reader: R, most: u64) -> Self {
        Self { reader, most, at: 0, count: 0 }
    }

    /// The next element; none after the last one, where the file must end too.
    pub(super) fn next(&mut self) -> Result<Option<Line>, Broken> {
        let first = self.count == 0;
        match self.visible()? {
            Some(b'[') if first => self.consume(),
            Some(b',') if !first => self.consume(),
            Some(b']') if !first => return self.end(),
            _ => return Err(self.malformed("a comma or the closing bracket is missing")),
        }
        if first && self.visible()? == Some(b']') {
            return self.end();
        }
        self.visible()?;
        let element = self.element()?;
        if element.size == 0 {
            return Err(self.malformed("an element is missing"));
        }
        self.count += 1;
        Ok(Some(element))
    }

    fn end(&mut self) -> Result<Option<Line>, Broken> {
        self.consume();
        match self.visible()? {
            None => Ok(None),
            Some(_) => Err(self.malformed("something follows the array")),
        }
    }

    /// Everything up to the comma or bracket that ends the element, which is left.
    fn element(&mut self) -> Result<Line, Broken> {
        let mut element = Line { bytes: Vec::new(), size: 0 };
        let (mut depth, mut quoted, mut escaped) = (0u64, false, false);
        while let Some(byte) = self.peek()? {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ if quoted => {}
                b'{' | b'[' => depth += 1,
                b',' | b']' | b'}' if depth == 0 => return Ok(element),
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.consume();
            element.size += 1;
            if element.size <= self.most {
                element.bytes.push(byte);
            } else if element.bytes.len() > EXCERPT_BYTES {
                // Too large: only the beginning is of use.
                element.bytes.truncate(EXCERPT_BYTES);
                element.bytes.shrink_to_fit();
            }
        }
        Err(self.malformed("the array is not closed"))
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.reader.fill_buf()?.first().copied())
    }

    /// The next byte that is no white space, which is left.
    fn visible(&mut self) -> io::Result<Option<u8>> {
        while let Some(byte) = self.peek()? {
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.consume();
        }
        Ok(None)
    }

    fn consume(&mut self) {
        self.reader.consume(1);
        self.at += 1;
    }

    fn malformed(&self, what: &str) -> Broken {
        Broken::Malformed(format!("{what}, at byte {} after {} elements", self.at, self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(text: &str, most: u64) -> Result<Vec<(String, u64)>, String> {
        // A buffer of one byte shows that elements may lie across buffers.
        let mut elements = Elements::new(io::BufReader::with_capacity(1, text.as_bytes()), most);
        let mut found = Vec::new();
        loop {
            match elements.next() {
                Ok(Some(line)) => found.push((String::from_utf8(line.bytes).unwrap().trim_end().to_owned(), line.size)),
                Ok(None) => return Ok(found),
                Err(Broken::Malformed(text)) => return Err(text),
                Err(Broken::Unreadable(error)) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn elements_are_cut_at_commas_that_stand_outside() {
        let text = "[ {\"a\": [1, 2], \"b\": \"],[}\\\"\"} ,\n 7, [[], {}]\n]\n ";
        let found: Vec<String> = elements(text, 100).unwrap().into_iter().map(|(text, _)| text).collect();
        assert_eq!(found, ["{\"a\": [1, 2], \"b\": \"],[}\\\"\"}", "7", "[[], {}]"]);
        assert_eq!(elements("[]", 100).unwrap(), []);
        let large = format!("[\"{}\", 1]", "x".repeat(5000));
        let found = elements(&large, 3000).unwrap();
        assert_eq!((found[0].0.len(), found[0].1, found[1].0.as_str()), (EXCERPT_BYTES, 5002, "1"));
    }

    #[test]
    fn a_broken_array_says_where() {
        for (text, what) in [
            ("[1, 2", "the array is not closed, at byte 5 after 1 elements"),
            ("[{\"a\": \"]", "the array is not closed"),
            ("[1 2] 3", "something follows the array"),
            ("[1,,2]", "an element is missing"),
            ("[1,]", "an element is missing"),
            ("[1}", "a comma or the closing bracket is missing"),
            ("[", "the array is not closed"),
        ] {
            let error = elements(text, 100).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
