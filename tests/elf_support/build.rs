//! ELF files put together by hand, of any class and byte order.

use gds_rs::formats::elf::{ByteOrder, Class};

/// What is written, number by number.
#[derive(Debug, Clone)]
pub struct Bytes {
    pub class: Class,
    pub order: ByteOrder,
    pub bytes: Vec<u8>,
}

impl Bytes {
    pub fn new(class: Class, order: ByteOrder) -> Self {
        let bytes = Vec::new();
        Self {
            class,
            order,
            bytes,
        }
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    fn number(&mut self, value: u64, size: usize) -> &mut Self {
        for index in 0..size {
            let place = match self.order {
                ByteOrder::Little => index,
                ByteOrder::Big => size - 1 - index,
            };
            self.bytes.push((value >> (place * 8)) as u8);
        }
        self
    }

    pub fn half(&mut self, value: u64) -> &mut Self {
        self.number(value, 2)
    }

    pub fn word(&mut self, value: u64) -> &mut Self {
        self.number(value, 4)
    }

    /// Of the size of an address.
    pub fn address(&mut self, value: u64) -> &mut Self {
        let size = if self.class == Class::Elf32 { 4 } else { 8 };
        self.number(value, size)
    }

    pub fn align(&mut self, align: usize) -> &mut Self {
        while !self.bytes.len().is_multiple_of(align) {
            self.bytes.push(0);
        }
        self
    }
}

/// A section of a file that is built.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub name: &'static str,
    pub kind: u32,
    pub flags: u64,
    pub address: u64,
    pub bytes: Vec<u8>,
    /// For NOBITS.
    pub size: Option<u64>,
    pub link: u32,
    pub info: u32,
    pub align: u64,
    pub entry_size: u64,
}

/// A file that is built: sections in order, section 0 and the names made by itself.
#[derive(Debug, Clone)]
pub struct File {
    pub class: Class,
    pub order: ByteOrder,
    pub machine: u64,
    pub parts: Vec<Part>,
    /// Type, flags, and the part whose bytes it has; memory beyond those, bytes.
    pub segments: Vec<(u32, u32, usize, u64)>,
    /// Counts go to section 0, as if they did not fit.
    pub extended: bool,
}

impl File {
    pub fn new(class: Class, order: ByteOrder) -> Self {
        // Both byte orders: MIPS (8), whose records are like others' for 32 bits; and 64 PPC (21).
        let machine = if class == Class::Elf32 { 8 } else { 21 };
        Self {
            class,
            order,
            machine,
            parts: Vec::new(),
            segments: Vec::new(),
            extended: false,
        }
    }

    pub fn new_bytes(&self) -> Bytes {
        Bytes::new(self.class, self.order)
    }

    pub fn is_64(&self) -> bool {
        self.class == Class::Elf64
    }

    /// Adds a section; its number.
    pub fn push(&mut self, part: Part) -> u32 {
        self.parts.push(part);
        self.parts.len() as u32
    }

    pub fn symbol(&self, to: &mut Bytes, name: u64, value: u64, size: u64, info: u64, at: u64) {
        if self.is_64() {
            to.word(name)
                .raw(&[info as u8, 0])
                .half(at)
                .address(value)
                .address(size);
        } else {
            to.word(name)
                .address(value)
                .address(size)
                .raw(&[info as u8, 0])
                .half(at);
        }
    }

    pub fn relocation(&self, to: &mut Bytes, offset: u64, symbol: u64, kind: u64) {
        let info = if self.is_64() {
            symbol << 32 | kind
        } else {
            symbol << 8 | kind
        };
        to.address(offset).address(info);
    }

    /// The whole file: header, program headers, sections, names, section headers.
    pub fn build(&self) -> Vec<u8> {
        let word: usize = if self.is_64() { 8 } else { 4 };
        let (header, segment, section) = if self.is_64() {
            (64, 56, 64)
        } else {
            (52, 32, 40)
        };
        let mut names = vec![0u8];
        let mut name_of = |name: &str| {
            let at = names.len() as u64;
            names.extend(name.as_bytes());
            names.push(0);
            at
        };
        let name_places: Vec<u64> = self.parts.iter().map(|part| name_of(part.name)).collect();
        let own_name = name_of(".shstrtab");
        let mut body = self.new_bytes();
        body.bytes.resize(header + segment * self.segments.len(), 0);
        let mut places = Vec::new();
        for part in &self.parts {
            body.align(part.align.clamp(1, 64) as usize);
            places.push(body.bytes.len() as u64);
            body.raw(&part.bytes);
        }
        let names_at = body.bytes.len() as u64;
        body.raw(&names).align(word);
        let table = body.bytes.len() as u64;
        let (sections, last) = (self.parts.len() as u64 + 2, self.parts.len() as u64 + 1);
        let segments = self.segments.len() as u64;
        let zero = if self.extended {
            [sections, last, segments]
        } else {
            [0; 3]
        };
        self.header(&mut body, 0, 0, 0, 0, 0, zero[0], zero[1], zero[2], 0, 0);
        for ((part, name), at) in self.parts.iter().zip(&name_places).zip(&places) {
            let size = part.size.unwrap_or(part.bytes.len() as u64);
            let (link, info) = (part.link.into(), part.info.into());
            let (kind, align, entry) = (part.kind.into(), part.align, part.entry_size);
            let (flags, address) = (part.flags, part.address);
            self.header(
                &mut body, *name, kind, flags, address, *at, size, link, info, align, entry,
            );
        }
        let size = names.len() as u64;
        self.header(&mut body, own_name, 3, 0, 0, names_at, size, 0, 0, 1, 0);
        let mut head = self.new_bytes();
        let class = if self.is_64() { 2 } else { 1 };
        let order = if self.order == ByteOrder::Little {
            1
        } else {
            2
        };
        head.raw(&[
            0x7f, b'E', b'L', b'F', class, order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
        head.half(3)
            .half(self.machine)
            .word(1)
            .address(0x1234)
            .address(header as u64);
        head.address(table)
            .word(0)
            .half(header as u64)
            .half(segment as u64);
        head.half(if self.extended { 0xffff } else { segments })
            .half(section as u64);
        head.half(if self.extended { 0 } else { sections });
        head.half(if self.extended { 0xffff } else { last });
        for (kind, flags, part, beyond) in &self.segments {
            let (at, part) = (places[*part], &self.parts[*part]);
            let (size, memory) = (part.bytes.len() as u64, part.bytes.len() as u64 + beyond);
            let (kind, flags) = (u64::from(*kind), u64::from(*flags));
            if self.is_64() {
                head.word(kind)
                    .word(flags)
                    .address(at)
                    .address(part.address);
                head.address(part.address)
                    .address(size)
                    .address(memory)
                    .address(part.align);
            } else {
                head.word(kind)
                    .address(at)
                    .address(part.address)
                    .address(part.address);
                head.address(size)
                    .address(memory)
                    .word(flags)
                    .address(part.align);
            }
        }
        body.bytes[..head.bytes.len()].copy_from_slice(&head.bytes);
        body.bytes
    }

    #[allow(clippy::too_many_arguments)]
    fn header(
        &self,
        to: &mut Bytes,
        name: u64,
        kind: u64,
        flags: u64,
        address: u64,
        at: u64,
        size: u64,
        link: u64,
        info: u64,
        align: u64,
        entry: u64,
    ) {
        to.word(name)
            .word(kind)
            .address(flags)
            .address(address)
            .address(at);
        to.address(size)
            .word(link)
            .word(info)
            .address(align)
            .address(entry);
    }
}

pub const SHAPES: [(Class, ByteOrder); 4] = [
    (Class::Elf32, ByteOrder::Little),
    (Class::Elf32, ByteOrder::Big),
    (Class::Elf64, ByteOrder::Little),
    (Class::Elf64, ByteOrder::Big),
];

/// A note.
pub fn note(to: &mut Bytes, owner: &[u8], kind: u64, text: &[u8], align: usize) {
    to.word(owner.len() as u64)
        .word(text.len() as u64)
        .word(kind)
        .raw(owner);
    to.align(align).raw(text).align(align);
}

/// A file with one of everything that is read: symbols of both kinds with versions, notes,
/// dynamic entries, the three kinds of relocations, and plain sections.
pub fn everything(class: Class, order: ByteOrder) -> File {
    let mut file = File::new(class, order);
    let word = if file.is_64() { 8 } else { 4 };
    let part = |name, kind, flags, bytes: &Bytes| Part {
        name,
        kind,
        flags,
        bytes: bytes.bytes.clone(),
        align: word,
        ..Part::default()
    };
    let mut bytes = file.new_bytes();
    bytes.raw(b"what is done");
    file.push(Part {
        address: 0x1000,
        ..part(".text", 1, 6, &bytes)
    });
    let mut bytes = file.new_bytes();
    bytes.raw(&[7; 100]);
    file.push(Part {
        address: 0x2000,
        ..part(".data", 1, 3, &bytes)
    });
    let size = Some(4096);
    file.push(Part {
        size,
        align: 32,
        ..part(".bss", 8, 3, &file.new_bytes())
    });
    // 4: names of symbols: 1 "first", 7 "second", 14 "libx.so", 22 "V_1", 26 "V_2".
    let mut strings = file.new_bytes();
    strings.raw(b"\0first\0second\0libx.so\0V_1\0V_2\0/opt/lib\0");
    let strings_at = file.push(Part {
        align: 1,
        ..part(".dynstr", 3, 2, &strings)
    });
    let mut symbols = file.new_bytes();
    let list = [
        (0, 0, 0, 0, 0),
        (1, 0x1000, 12, 0x12, 1),
        (7, 0, 0, 0x12, 0),
        (1, 9, 0, 0x11, 0xfff1),
    ];
    for (name, value, size, info, at) in list {
        file.symbol(&mut symbols, name, value, size, info, at);
    }
    let entry = if file.is_64() { 24 } else { 16 };
    let table = Part {
        link: strings_at,
        info: 1,
        entry_size: entry,
        ..part("", 11, 2, &symbols)
    };
    let dynamic_symbols = file.push(Part {
        name: ".dynsym",
        ..table.clone()
    });
    file.push(Part {
        name: ".symtab",
        kind: 2,
        flags: 0,
        ..table
    });
    let mut numbers = file.new_bytes();
    numbers.half(0).half(2).half(3).half(0x8002);
    let versions = part(".gnu.version", 0x6fff_ffff, 2, &numbers);
    file.push(Part {
        link: dynamic_symbols,
        entry_size: 2,
        align: 2,
        ..versions
    });
    let mut defined = file.new_bytes();
    defined
        .half(1)
        .half(1)
        .half(1)
        .half(1)
        .word(0)
        .word(20)
        .word(28)
        .word(14)
        .word(0);
    defined
        .half(1)
        .half(0)
        .half(2)
        .half(1)
        .word(0)
        .word(20)
        .word(0)
        .word(22)
        .word(0);
    let versions = part(".gnu.version_d", 0x6fff_fffd, 2, &defined);
    file.push(Part {
        link: strings_at,
        info: 2,
        ..versions
    });
    let mut needed = file.new_bytes();
    needed.half(1).half(1).word(14).word(16).word(0);
    needed.word(0).half(0).half(3).word(26).word(0);
    let versions = part(".gnu.version_r", 0x6fff_fffe, 2, &needed);
    file.push(Part {
        link: strings_at,
        info: 1,
        ..versions
    });
    let mut notes = file.new_bytes();
    note(&mut notes, b"GNU\0", 3, &[0xab; 20], 4);
    note(&mut notes, b"three\0", 9, b"", 4);
    let build_id = part(".note.one", 7, 2, &notes);
    file.push(Part {
        align: 4,
        ..build_id
    });
    let mut notes = file.new_bytes();
    note(&mut notes, b"XYZ\0", 5, &[1; 12], 8);
    note(&mut notes, b"XYZ\0", 5, &[2; 16], 8);
    let property = part(".note.eight", 7, 2, &notes);
    file.push(Part {
        align: 8,
        ..property
    });
    let mut entries = file.new_bytes();
    for (tag, value) in [
        (1, 14),
        (14, 14),
        (29, 30),
        (5, 0x3000),
        (10, 39),
        (0, 0),
        (0, 0),
    ] {
        entries.address(tag).address(value);
    }
    let dynamic = part(".dynamic", 6, 3, &entries);
    file.push(Part {
        link: strings_at,
        entry_size: word * 2,
        ..dynamic
    });
    let mut list = file.new_bytes();
    file.relocation(&mut list, 0x2000, 1, 2);
    file.relocation(&mut list, 0x2008, 0, 3);
    let relocations = part(".rel.dyn", 9, 2, &list);
    file.push(Part {
        link: dynamic_symbols,
        entry_size: word * 2,
        ..relocations
    });
    let mut list = file.new_bytes();
    file.relocation(&mut list, 0x2010, 2, 2);
    list.address(5);
    file.relocation(&mut list, 0x2018, 1, 2);
    list.address(u64::MAX - 6);
    let relocations = part(".rela.dyn", 4, 2, &list);
    file.push(Part {
        link: dynamic_symbols,
        entry_size: word * 3,
        ..relocations
    });
    let mut list = file.new_bytes();
    list.address(0x2000)
        .address(0b1011)
        .address(u64::MAX)
        .address(3)
        .address(0x9000)
        .address(5);
    let relocations = part(".relr.dyn", 19, 2, &list);
    file.push(Part {
        entry_size: word,
        ..relocations
    });
    file.segments = vec![(1, 5, 0, 0), (1, 6, 1, 1000), (4, 4, 9, 0), (2, 6, 11, 0)];
    file
}
