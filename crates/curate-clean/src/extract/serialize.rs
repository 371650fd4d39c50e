//! From a tree to text: blocks in reading order, then one string.
//!
//! Paragraphs are separated by a blank line, items of one list by a line break, so that both people and the line
//! and paragraph rules of later stages see the structure. List items begin with `- ` or their number, tables
//! become pipe tables, preformatted text stays as it is between fences. Headings are plain paragraphs: the usual
//! quality rules count `#` as a symbol (Gopher drops texts with many), and a heading says what it is by its place.

use super::dom::{Dom, Node, Tag};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Paragraph,
    Heading,
    /// First lines of a list item.
    Item,
    /// Further lines of the same item.
    ItemMore,
    Table,
    Pre,
}

/// A paragraph, heading, item, table or listing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Block {
    pub kind: Kind,
    /// What stands before the first line: indentation and marker of a list item.
    pub marker: String,
    pub text: String,
    /// Bytes that are not white space; those inside links; the number of links.
    pub ink: u32,
    pub link_ink: u32,
    pub links: u32,
}

/// Lists deeper than this are indented no further.
const MAX_INDENT: usize = 8;
/// A column count that no table for readers exceeds; a larger `colspan` is a typing error.
const MAX_COLUMNS: usize = 200;
/// A cell longer than this holds prose, so the table is layout.
const MAX_CELL_INK: u32 = 1_000;

/// Turns a tree into blocks; a subtree for which `leave_out` says true is skipped.
pub(crate) fn blocks(dom: &Dom, leave_out: impl Fn(usize, &Node) -> bool) -> Vec<Block> {
    let mut writer = Writer::default();
    let mut open: Vec<(usize, Exit)> = Vec::new();
    let mut index = 0;
    loop {
        while open.last().is_some_and(|(end, _)| *end <= index) {
            if let Some((_, exit)) = open.pop() {
                writer.leave(exit);
            }
        }
        let Some(node) = dom.nodes.get(index) else { break };
        if leave_out(index, node) {
            index = node.end as usize;
            continue;
        }
        match node.tag {
            Tag::Text => writer.text(dom.text(index)),
            Tag::Unseen => {
                index = node.end as usize;
                continue;
            }
            _ => {
                let exit = writer.enter(dom, index, node);
                open.push((node.end as usize, exit));
            }
        }
        index += 1;
    }
    writer.flush();
    writer.blocks
}

/// Joins blocks into the text of a document, without a final line break.
pub(crate) fn render(blocks: &[Block]) -> String {
    let mut out = String::new();
    let mut before: Option<Kind> = None;
    for block in blocks {
        let in_list = matches!(block.kind, Kind::Item | Kind::ItemMore);
        match before {
            None => {}
            Some(Kind::Item | Kind::ItemMore) if in_list => out.push('\n'),
            Some(_) => out.push_str("\n\n"),
        }
        before = Some(block.kind);
        out.push_str(&block.marker);
        if in_list && block.text.contains('\n') {
            let indent = " ".repeat(block.marker.len());
            out.push_str(&block.text.replace('\n', &format!("\n{indent}")));
        } else {
            out.push_str(&block.text);
        }
    }
    out
}

/// What to do at the end of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Nothing,
    Link,
    Block,
    Heading,
    List,
    Item,
    Pre,
    Cell,
    Row,
    Table,
}

/// A list whose items are being written; ordered lists know their next number.
struct List {
    next_number: Option<u32>,
}

#[derive(Default)]
struct Writer {
    blocks: Vec<Block>,
    line: String,
    ink: u32,
    link_ink: u32,
    links: u32,
    space: bool,
    link_depth: u32,
    heading_depth: u32,
    pre_depth: u32,
    after_link: bool,
    lists: Vec<List>,
    /// Markers of the open items; empty once the first line of the item is out, then its indentation counts.
    items: Vec<Marker>,
    table: Option<Cells>,
}

struct Marker {
    first: Option<String>,
    indent: usize,
}

/// A data table being collected; only tables without nested ones come here.
#[derive(Default)]
struct Cells {
    rows: Vec<Vec<String>>,
    span: usize,
}

impl Writer {
    fn enter(&mut self, dom: &Dom, index: usize, node: &Node) -> Exit {
        if self.pre_depth > 0 {
            return self.enter_in_pre(node);
        }
        match node.tag {
            Tag::Break => {
                self.line_break();
                Exit::Nothing
            }
            Tag::Link => {
                // Adjacent links are separate words on every site that sets them as buttons.
                self.space |= self.after_link;
                self.links += 1;
                self.link_depth += 1;
                Exit::Link
            }
            Tag::Button => {
                self.space = true;
                Exit::Nothing
            }
            Tag::Pre if self.table.is_none() => self.enter_pre(),
            // Engines turn listings into `code`; one with line breaks is a listing.
            Tag::Code if self.table.is_none() && dom.text(index).trim_matches('\n').contains('\n') => {
                self.enter_pre()
            }
            Tag::Inline | Tag::Code => Exit::Nothing,
            Tag::Table => self.enter_table(dom, index, node),
            Tag::Row if self.table.is_some() => {
                self.caption();
                self.table.get_or_insert_default().rows.push(Vec::new());
                Exit::Row
            }
            Tag::Cell | Tag::HeaderCell if self.table.is_some() => {
                self.clear_line();
                self.table.get_or_insert_default().span = node.number as usize;
                Exit::Cell
            }
            _ => self.enter_block(node),
        }
    }

    fn enter_block(&mut self, node: &Node) -> Exit {
        self.flush();
        match node.tag {
            Tag::Heading => {
                self.heading_depth += 1;
                Exit::Heading
            }
            Tag::List => {
                self.lists.push(List { next_number: None });
                Exit::List
            }
            Tag::OrderedList => {
                self.lists.push(List { next_number: Some(node.number) });
                Exit::List
            }
            Tag::Item => {
                self.begin_item();
                Exit::Item
            }
            _ => Exit::Block,
        }
    }

    fn begin_item(&mut self) {
        let indent = 2 * self.lists.len().saturating_sub(1).min(MAX_INDENT);
        let marker = match self.lists.last_mut().and_then(|list| list.next_number.as_mut()) {
            Some(number) => {
                let marker = format!("{}{number}. ", " ".repeat(indent));
                *number = number.saturating_add(1);
                marker
            }
            None => format!("{}- ", " ".repeat(indent)),
        };
        self.items.push(Marker { indent: marker.len(), first: Some(marker) });
    }

    fn enter_pre(&mut self) -> Exit {
        self.flush();
        self.pre_depth = 1;
        Exit::Pre
    }

    fn enter_in_pre(&mut self, node: &Node) -> Exit {
        match node.tag {
            Tag::Break => self.line.push('\n'),
            tag if tag.is_block() => {
                if !self.line.is_empty() && !self.line.ends_with('\n') {
                    self.line.push('\n');
                }
                return Exit::Block;
            }
            Tag::Link => {
                self.links += 1;
                self.link_depth += 1;
                return Exit::Link;
            }
            _ => {}
        }
        Exit::Nothing
    }

    fn enter_table(&mut self, dom: &Dom, index: usize, node: &Node) -> Exit {
        self.flush();
        if self.table.is_none() && is_data_table(dom, index, node) {
            self.table = Some(Cells::default());
            return Exit::Table;
        }
        Exit::Block
    }

    fn leave(&mut self, exit: Exit) {
        match exit {
            Exit::Nothing => {}
            Exit::Link => {
                self.link_depth -= 1;
                self.after_link = true;
            }
            Exit::Block if self.pre_depth > 0 => {
                if !self.line.ends_with('\n') {
                    self.line.push('\n');
                }
            }
            Exit::Block => self.flush(),
            Exit::Heading => {
                self.flush();
                self.heading_depth -= 1;
            }
            Exit::List => {
                self.flush();
                self.lists.pop();
            }
            Exit::Item => {
                self.flush();
                self.items.pop();
            }
            Exit::Pre => self.leave_pre(),
            Exit::Cell => self.leave_cell(),
            Exit::Row => self.clear_line(),
            Exit::Table => self.leave_table(),
        }
    }

    fn text(&mut self, text: &str) {
        if self.pre_depth > 0 {
            let ink: usize = text.split_whitespace().map(str::len).sum();
            self.count(ink);
            self.line.push_str(text);
            return;
        }
        let mut words = text.split(char::is_whitespace);
        // `split` gives an empty piece before, between and after white space: each asks for one space.
        let Some(first) = words.next() else { return };
        self.word(first);
        for word in words {
            self.space = true;
            self.word(word);
        }
    }

    fn word(&mut self, word: &str) {
        if word.is_empty() {
            return;
        }
        if self.space && !self.line.is_empty() && !self.line.ends_with('\n') {
            self.line.push(' ');
        }
        self.space = false;
        self.after_link = false;
        self.line.push_str(word);
        self.count(word.len());
    }

    fn count(&mut self, ink: usize) {
        let ink = u32::try_from(ink).unwrap_or(u32::MAX);
        self.ink = self.ink.saturating_add(ink);
        if self.link_depth > 0 {
            self.link_ink = self.link_ink.saturating_add(ink);
        }
    }

    /// `<br>`: a new line; two in a row are how old pages end a paragraph.
    fn line_break(&mut self) {
        if self.table.is_some() {
            self.space = true;
        } else if self.line.ends_with('\n') {
            self.flush();
        } else if !self.line.is_empty() {
            self.line.push('\n');
            self.space = false;
        }
    }

    /// Ends the line in progress and makes a block of it; inside a table cell it only separates words.
    fn flush(&mut self) {
        self.after_link = false;
        if self.table.is_some() || self.pre_depth > 0 {
            self.space = true;
            return;
        }
        let text = self.line.trim_end();
        if text.is_empty() {
            return self.take_line();
        }
        let (kind, marker) = match self.items.last_mut() {
            Some(item) => match item.first.take() {
                Some(marker) => (Kind::Item, marker),
                None => (Kind::ItemMore, " ".repeat(item.indent)),
            },
            None if self.heading_depth > 0 => (Kind::Heading, String::new()),
            None => (Kind::Paragraph, String::new()),
        };
        let text = text.to_owned();
        self.push(kind, marker, text);
        self.take_line();
    }

    fn push(&mut self, kind: Kind, marker: String, text: String) {
        let block = Block { kind, marker, text, ink: self.ink, link_ink: self.link_ink, links: self.links };
        self.blocks.push(block);
    }

    /// Empties the line in progress and its counts.
    fn take_line(&mut self) {
        self.clear_line();
        (self.ink, self.link_ink, self.links) = (0, 0, 0);
    }

    /// Empties the line alone: a table counts for all its cells.
    fn clear_line(&mut self) {
        self.line.clear();
        self.space = false;
    }

    /// Text of a table before its first row is its caption.
    fn caption(&mut self) {
        let has_rows = self.table.as_ref().is_some_and(|table| !table.rows.is_empty());
        let text = self.line.trim_end().to_owned();
        if !has_rows && !text.is_empty() {
            self.push(Kind::Paragraph, String::new(), text);
            self.take_line();
        }
    }

    fn leave_pre(&mut self) {
        self.pre_depth = 0;
        let listing = self.line.trim_end().trim_start_matches(['\n', '\r']).replace('\u{a0}', " ");
        let is_gutter = listing.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_whitespace());
        if is_gutter {
            return self.take_line(); // The line numbers of a listing in the next cell, or nothing.
        }
        let longest = listing.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(3.max(longest + 1));
        self.push(Kind::Pre, String::new(), format!("{fence}\n{listing}\n{fence}"));
        self.take_line();
    }

    fn leave_cell(&mut self) {
        let cell = self.line.trim_end().replace('|', "\\|");
        self.clear_line();
        let Some(table) = &mut self.table else { return };
        let span = if table.span > MAX_COLUMNS { 1 } else { table.span.max(1) };
        let Some(row) = table.rows.last_mut() else { return };
        if row.len() < MAX_COLUMNS {
            row.push(cell);
            row.extend(std::iter::repeat_n(String::new(), span - 1));
        } else if let Some(last) = row.last_mut() {
            last.push(' ');
            last.push_str(&cell);
        }
    }

    /// Writes the table; a table that turns out to have one column gives a paragraph for each row.
    fn leave_table(&mut self) {
        let Some(table) = self.table.take() else { return };
        let mut rows = table.rows;
        rows.retain(|row| row.iter().any(|cell| !cell.is_empty()));
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let used: Vec<usize> = (0..columns)
            .filter(|&at| rows.iter().any(|row| row.get(at).is_some_and(|cell| !cell.is_empty())))
            .collect();
        if used.len() < 2 {
            for row in rows {
                let text = row.concat().replace("\\|", "|");
                self.ink = u32::try_from(text.len()).unwrap_or(u32::MAX);
                self.push(Kind::Paragraph, String::new(), text);
            }
            return self.take_line();
        }
        let mut text = String::new();
        for (number, row) in rows.iter().enumerate() {
            for &at in &used {
                text.push_str("| ");
                text.push_str(row.get(at).map_or("", String::as_str));
                text.push(' ');
            }
            text.push_str("|\n");
            if number == 0 {
                text.push_str(&"|---".repeat(used.len()));
                text.push_str("|\n");
            }
        }
        text.pop();
        self.push(Kind::Table, String::new(), text);
        self.take_line();
    }
}

/// Whether a table holds data: rows of two or more short cells, no table, listing or longer text inside.
///
/// The scan ends at the first nested table, so the scans of all tables together visit each node once.
fn is_data_table(dom: &Dom, index: usize, table: &Node) -> bool {
    if table.layout {
        return false;
    }
    let (mut cells, mut widest) = (0, 0);
    for node in &dom.nodes[index + 1..table.end as usize] {
        match node.tag {
            Tag::Table | Tag::Pre => return false,
            Tag::Row => cells = 0,
            Tag::Cell | Tag::HeaderCell if node.ink > MAX_CELL_INK => return false,
            Tag::Cell | Tag::HeaderCell => {
                cells += 1;
                widest = widest.max(cells);
            }
            _ => {}
        }
    }
    widest >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(html: &str, expected: &str) {
        let dom = Dom::of_content(html);
        assert_eq!(render(&blocks(&dom, |_, _| false)), expected, "{html}");
    }

    #[test]
    fn paragraphs_headings_and_lines() {
        check("", "");
        check("  \n ", "");
        check("<h1>T</h1><p>a\n  b&nbsp;c &amp; d</p><p>e</p>", "T\n\na b c & d\n\ne");
        check("<p>a<br>b <br/> c</p>", "a\nb\nc");
        check("a<br><br>b<br> <br><br>c", "a\n\nb\n\nc");
        check("<div>a<div>b</div>c</div>", "a\n\nb\n\nc");
        check("<p>one<b>two</b> <i> three</i></p>", "onetwo three");
        check("<p>see <code>x  =  1</code>.</p>", "see x = 1.");
        check("<p>日本<b>語</b></p>", "日本語");
        check("<a href=1>Home</a><a href=2>About</a>", "Home About");
        check("<a href=1>Home</a>, <a href=2>About</a>s", "Home, Abouts");
        check("<p>x<img alt=picture><script>s</script><style>t</style>y</p>", "xy");
        check("a<hr>b", "a\n\nb");
    }

    #[test]
    fn lists() {
        check("<p>p</p><ul><li>a</li><li> b </li></ul><p>q</p>", "p\n\n- a\n- b\n\nq");
        check("<ol start=3><li>a<li>b<ul><li>c</ul></ol>", "3. a\n4. b\n  - c");
        check("<ul><li><p>a</p><p>b</p></li><li></li><li>c<br>d</li></ul>", "- a\n  b\n- c\n  d");
        check("<li>lone</li>", "- lone");
        check("<ol start=4294967295><li>a<li>b</ol>", "4294967295. a\n4294967295. b");
        check("<dl><dt>t</dt><dd>d</dd></dl>", "t\n\nd");
    }

    #[test]
    fn tables() {
        check("<table><tr><th>a<th>b<tr><td>1|2<td>3<br>4</table>", "| a | b |\n|---|---|\n| 1\\|2 | 3 4 |");
        check("<table><tr><td>a<td>b<td>c<tr><td>d</table>", "| a | b | c |\n|---|---|---|\n| d |  |  |");
        check("<table><tr><td>only</td></tr><tr><td>rows</td></tr></table>", "only\n\nrows");
        check("<table><tr><td></td><td>x|y</td></tr><tr><td></td><td>z</td></tr></table>", "x|y\n\nz");
        check("<table role=presentation><tr><td>a<td>b</table>", "a\n\nb");
        check("<table><tr><td>menu<td><table><tr><td>1<td>2</table></table>", "menu\n\n| 1 | 2 |\n|---|---|");
        check(
            "<table><tr><td colspan=2>a<td>b<tr><td>1<td>2<td>3</table>",
            "| a |  | b |\n|---|---|---|\n| 1 | 2 | 3 |",
        );
        check("<table><tr><td colspan=999999999>a<td>b</table>", "| a | b |\n|---|---|");
        check(
            "<table><caption>c</caption><tr><td><p>a</p><p>b</p><td><ul><li>x<li>y</ul></table>",
            "c\n\n| a b | x y |\n|---|---|",
        );
        check("<table></table>", "");
    }

    #[test]
    fn preformatted_text_is_kept() {
        check("<pre>\nfn a() {\n    b&lt;c\n\n}\n</pre>", "```\nfn a() {\n    b<c\n\n}\n```");
        check("<pre><code>  x\n<span>y</span></code></pre>", "```\n  x\ny\n```");
        check("<pre>a<br>b<div>c</div>d</pre>", "```\na\nb\nc\nd\n```");
        check("<pre>```\nx</pre>", "````\n```\nx\n````");
        check("<pre>1\n2\n</pre><pre>a\nb</pre>", "```\na\nb\n```");
        check("<code>a\n  b</code>", "```\na\n  b\n```");
        check("<pre> </pre>", "");
    }
}
