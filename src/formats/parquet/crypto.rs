//! Modular encryption: keys, and the decryption of the modules that are not the footer.
//!
//! github.com/apache/parquet-format/blob/master/Encryption.md. The footer and the metadata of
//! columns are decrypted by the official crate. It knows nothing of AES_GCM_CTR_V1, in which the
//! pages alone go without a tag; so pages, page indexes and bloom filters are decrypted here, and
//! what is decoded afterwards is as if it had never been encrypted.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::errors::ParquetError;
use parquet::file::column_crypto_metadata::ColumnCryptoMetaData;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::failure::{corrupted, failed};
use super::thrift::{BINARY, Compact, FALSE, STRUCT, TRUE};
use crate::error::{Error, ErrorKind, Result};

const LENGTH: usize = 4;
const NONCE: usize = 12;
const TAG: usize = 16;

/// Keys of an encrypted file: 16 or 32 bytes each (ring, which decrypts, has no 24).
#[derive(Clone, Default)]
pub struct Keys {
    /// Of the footer.
    pub footer: Vec<u8>,
    /// Of columns, by their names in the file ("a.list.element").
    pub columns: Vec<(String, Vec<u8>)>,
    /// Of footer and columns, by the key metadata that stand in the file. For what is not named
    /// above.
    pub by_metadata: Vec<(Vec<u8>, Vec<u8>)>,
    /// What identifies the file, where the file itself does not hold it.
    pub aad_prefix: Option<Vec<u8>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} columns)", self.columns.len())
    }
}

impl Keys {
    fn of_metadata(&self, metadata: &[u8]) -> Option<&[u8]> {
        let found = self.by_metadata.iter().find(|(m, _)| m == metadata);
        found.map(|(_, key)| key.as_slice())
    }

    fn footer(&self, metadata: Option<&[u8]>) -> Option<&[u8]> {
        match self.footer.is_empty() {
            true => self.of_metadata(metadata.unwrap_or_default()),
            false => Some(&self.footer),
        }
    }

    fn column(&self, name: &str, metadata: Option<&[u8]>) -> Option<&[u8]> {
        let named = self.columns.iter().find(|(n, _)| n == name);
        match named {
            Some((_, key)) => Some(key),
            None => self.of_metadata(metadata?),
        }
    }

    /// As the official crate wants them, to decrypt footer and metadata.
    pub(super) fn for_crate(
        self: &Arc<Self>,
    ) -> parquet::errors::Result<Arc<FileDecryptionProperties>> {
        if self.columns.is_empty() && !self.by_metadata.is_empty() {
            let builder =
                FileDecryptionProperties::with_key_retriever(Arc::new(Retriever(self.clone())))
                    // Verified here: it would not know what was changed for it.
                    .disable_footer_signature_verification();
            return match &self.aad_prefix {
                Some(prefix) => builder.with_aad_prefix(prefix.clone()).build(),
                None => builder.build(),
            };
        }
        let mut builder = FileDecryptionProperties::builder(self.footer.clone())
            .disable_footer_signature_verification();
        for (name, key) in &self.columns {
            builder = builder.with_column_key(name, key.clone());
        }
        if let Some(prefix) = &self.aad_prefix {
            builder = builder.with_aad_prefix(prefix.clone());
        }
        builder.build()
    }
}

struct Retriever(Arc<Keys>);

impl KeyRetriever for Retriever {
    fn retrieve_key(&self, metadata: &[u8]) -> parquet::errors::Result<Vec<u8>> {
        let key = self.0.of_metadata(metadata).or_else(|| {
            // A footer whose key is given without metadata.
            let footer = self.0.footer.as_slice();
            (!footer.is_empty()).then_some(footer)
        });
        let missing = || {
            let name = String::from_utf8_lossy(metadata).into_owned();
            ParquetError::General(format!("no key was given for the key metadata \"{name}\""))
        };
        key.map(<[u8]>::to_vec).ok_or_else(missing)
    }
}

/// What a module is. The numbers stand in its additional data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Module {
    DataPage = 2,
    DictionaryPage = 3,
    DataPageHeader = 4,
    DictionaryPageHeader = 5,
    ColumnIndex = 6,
    OffsetIndex = 7,
    BloomHeader = 8,
    BloomBits = 9,
}

/// How a file is encrypted.
#[derive(Debug, Clone)]
pub(super) struct Crypto {
    keys: Arc<Keys>,
    /// Metadata of the footer's key.
    footer_metadata: Option<Vec<u8>>,
    /// Additional data that all modules share.
    aad: Vec<u8>,
    /// Pages have no tag (AES_GCM_CTR_V1).
    pub pages_in_ctr: bool,
}

/// What a footer says of its encryption, in the clear.
#[derive(Debug, Default)]
pub(super) struct Algorithm {
    /// Where the byte lies that tells the two algorithms from each other.
    pub at: usize,
    pub is_ctr: bool,
    pub prefix: Vec<u8>,
    pub unique: Vec<u8>,
    pub key_metadata: Option<Vec<u8>>,
    /// Bytes of FileCryptoMetaData, when it is that.
    pub size: usize,
}

/// The head of the field that a union has when it says AES_GCM_V1, and AES_GCM_CTR_V1.
pub(super) const GCM_FIELD: u8 = 0x1c;
const CTR_FIELD: u8 = 0x2c;

impl Algorithm {
    /// Of the FileCryptoMetaData before an encrypted footer.
    pub fn of_encrypted_footer(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes, 1, 2)
    }

    /// Of a footer in the clear; nothing in it is encrypted when there is none.
    pub fn of_footer(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes, 8, 9)
    }

    fn parse(bytes: &[u8], algorithm: i16, key: i16) -> Option<Self> {
        let mut reader = Compact::new(bytes);
        let mut found = None;
        let mut key_metadata = None;
        let mut last = 0;
        while let Some(field) = reader.field(last)? {
            last = field.id;
            match (field.id, field.kind) {
                (id, STRUCT) if id == algorithm => found = Some(Self::union(&mut reader, bytes)?),
                (id, BINARY) if id == key => key_metadata = Some(reader.binary()?.to_vec()),
                _ => reader.skip(field.kind)?,
            }
        }
        let mut found = found?;
        found.key_metadata = key_metadata;
        found.size = reader.position();
        Some(found)
    }

    fn union(reader: &mut Compact<'_>, bytes: &[u8]) -> Option<Self> {
        let at = reader.position();
        let head = *bytes.get(at)?;
        if head != GCM_FIELD && head != CTR_FIELD {
            return None;
        }
        reader.field(0)??;
        let mut made = Self {
            at,
            is_ctr: head == CTR_FIELD,
            ..Self::default()
        };
        let mut last = 0;
        while let Some(field) = reader.field(last)? {
            last = field.id;
            match (field.id, field.kind) {
                (1, BINARY) => made.prefix = reader.binary()?.to_vec(),
                (2, BINARY) => made.unique = reader.binary()?.to_vec(),
                (3, TRUE | FALSE) => {}
                _ => reader.skip(field.kind)?,
            }
        }
        // The union itself ends too.
        reader.field(1)?.is_none().then_some(made)
    }
}

fn cipher(key: &[u8], whose: &str, path: &Path) -> Result<LessSafeKey> {
    let algorithm = match key.len() {
        16 => &AES_128_GCM,
        32 => &AES_256_GCM,
        other => {
            let message = format!(
                "the key of {whose} of {} has {other} bytes; keys have 16 or 32",
                path.display()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_path(path));
        }
    };
    match UnboundKey::new(algorithm, key) {
        Ok(key) => Ok(LessSafeKey::new(key)),
        Err(_) => Err(failed(path, "take a key", "the cipher refused it")),
    }
}

fn nonce(bytes: &[u8]) -> Option<Nonce> {
    Nonce::try_assume_unique_for_key(bytes.get(..NONCE)?).ok()
}

impl Crypto {
    pub fn new(keys: &Arc<Keys>, algorithm: &Algorithm) -> Self {
        let prefix = keys.aad_prefix.as_ref().unwrap_or(&algorithm.prefix);
        Self {
            keys: keys.clone(),
            footer_metadata: algorithm.key_metadata.clone(),
            aad: [prefix.as_slice(), &algorithm.unique].concat(),
            pages_in_ctr: algorithm.is_ctr,
        }
    }

    fn footer_key(&self, path: &Path) -> Result<LessSafeKey> {
        let Some(key) = self.keys.footer(self.footer_metadata.as_deref()) else {
            return Err(no_key("the footer", path));
        };
        cipher(key, "the footer", path)
    }

    /// Checks the signature of a footer in the clear: a nonce and a tag behind it.
    pub fn verify_footer(&self, footer: &[u8], offset: u64, path: &Path) -> Result<()> {
        let key = self.footer_key(path)?;
        let aad = [self.aad.as_slice(), &[0]].concat();
        let signed = footer.len().checked_sub(NONCE + TAG);
        let matches = signed.and_then(|size| {
            let mut body = footer.get(..size)?.to_vec();
            let nonce = nonce(footer.get(size..)?)?;
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut body);
            Some(tag.ok()?.as_ref() == footer.get(size + NONCE..)?)
        });
        match matches {
            Some(true) => Ok(()),
            _ => Err(corrupted(
                path,
                offset,
                "the signature of the footer does not match: its key or the AAD prefix is wrong, \
                 or the footer was changed",
            )),
        }
    }

    /// The key of a column.
    pub fn column(
        &self,
        name: &str,
        how: &ColumnCryptoMetaData,
        row_group: usize,
        column: usize,
        path: &Path,
    ) -> Result<ColumnCrypto> {
        let key = match how {
            ColumnCryptoMetaData::ENCRYPTION_WITH_FOOTER_KEY => self.footer_key(path)?,
            ColumnCryptoMetaData::ENCRYPTION_WITH_COLUMN_KEY(with) => {
                let whose = format!("column {name}");
                let key = self.keys.column(name, with.key_metadata.as_deref());
                let key = key.ok_or_else(|| no_key(&whose, path))?;
                cipher(key, &whose, path)?
            }
        };
        let (Ok(row_group), Ok(ordinal)) = (i16::try_from(row_group), i16::try_from(column)) else {
            let message = "an encrypted file has 32767 row groups and columns at most";
            return Err(corrupted(path, 0, message));
        };
        Ok(ColumnCrypto {
            key,
            name: name.to_owned(),
            aad: self.aad.clone(),
            row_group,
            ordinal,
            pages_in_ctr: self.pages_in_ctr,
        })
    }
}

/// Says that a key is missing.
pub(super) fn no_key(whose: &str, path: &Path) -> Error {
    let message = format!(
        "{whose} of {} is encrypted and no key was given for it; pass it in the keys",
        path.display()
    );
    Error::new(ErrorKind::InvalidArgument, message).with_path(path)
}

/// Decrypts the modules of one column chunk.
pub(super) struct ColumnCrypto {
    key: LessSafeKey,
    name: String,
    aad: Vec<u8>,
    row_group: i16,
    ordinal: i16,
    pages_in_ctr: bool,
}

impl ColumnCrypto {
    fn module_aad(&self, module: Module, page: Option<i16>) -> Vec<u8> {
        let mut aad = self.aad.clone();
        aad.push(module as u8);
        aad.extend_from_slice(&self.row_group.to_le_bytes());
        aad.extend_from_slice(&self.ordinal.to_le_bytes());
        if let Some(page) = page {
            aad.extend_from_slice(&page.to_le_bytes());
        }
        aad
    }

    /// Decrypts the module that `bytes` begins with, which lies at `offset` of the file: what it
    /// holds, and the bytes that it takes.
    pub fn open(
        &self,
        module: Module,
        page: Option<i16>,
        bytes: &[u8],
        offset: u64,
        path: &Path,
    ) -> Result<(Vec<u8>, usize)> {
        let is_page = matches!(module, Module::DataPage | Module::DictionaryPage);
        let length = bytes.get(..LENGTH).and_then(|b| b.try_into().ok());
        let length = length.map_or(0, u32::from_le_bytes) as usize;
        let module_end = LENGTH.saturating_add(length);
        let body = bytes.get(LENGTH..module_end);
        let opened = body.and_then(|body| {
            let nonce = nonce(body)?;
            let mut text = body.get(NONCE..)?.to_vec();
            if is_page && self.pages_in_ctr {
                self.open_ctr(body.get(..NONCE)?, &mut text)?;
                return Some(text);
            }
            let aad = self.module_aad(module, page);
            let size = self
                .key
                .open_in_place(nonce, Aad::from(&aad), &mut text)
                .ok()?
                .len();
            text.truncate(size);
            Some(text)
        });
        opened.map(|text| (text, module_end)).ok_or_else(|| {
            let message = format!(
                "the {} of column {} does not decrypt: its key or the AAD prefix is wrong, or the \
                 file was changed",
                name_of(module),
                self.name
            );
            corrupted(path, offset, &message)
        })
    }

    /// Counter mode, made of GCM, which counts from 2 on and seals nothing else with its block 1
    /// than a tag. Of no bytes and no additional data, the tag is that block.
    fn open_ctr(&self, iv: &[u8], text: &mut [u8]) -> Option<()> {
        let none: &mut [u8] = &mut [];
        let first = self
            .key
            .seal_in_place_separate_tag(nonce(iv)?, Aad::empty(), none)
            .ok()?;
        let (head, rest) = text.split_at_mut(text.len().min(TAG));
        for (byte, mask) in head.iter_mut().zip(first.as_ref()) {
            *byte ^= mask;
        }
        let rest = self
            .key
            .seal_in_place_separate_tag(nonce(iv)?, Aad::empty(), rest);
        rest.ok().map(|_| ())
    }
}

fn name_of(module: Module) -> &'static str {
    match module {
        Module::DataPage => "data page",
        Module::DictionaryPage => "dictionary page",
        Module::DataPageHeader => "header of a data page",
        Module::DictionaryPageHeader => "header of the dictionary page",
        Module::ColumnIndex => "column index",
        Module::OffsetIndex => "offset index",
        Module::BloomHeader => "head of the bloom filter",
        Module::BloomBits => "bloom filter",
    }
}

impl fmt::Debug for ColumnCrypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ColumnCrypto({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the test cases of AES-GCM (McGrew and Viega): the tag of the first, which is counter 1,
    /// and the text of the second, which is counter 2.
    #[test]
    fn counter_mode_begins_with_counter_one() {
        let key = UnboundKey::new(&AES_128_GCM, &[0; 16]).expect("a key");
        let column = ColumnCrypto {
            key: LessSafeKey::new(key),
            name: "c".into(),
            aad: Vec::new(),
            row_group: 0,
            ordinal: 0,
            pages_in_ctr: true,
        };
        let mut text = [0; 32];
        column.open_ctr(&[0; 12], &mut text).expect("decrypts");
        let blocks = [
            0x58, 0xe2, 0xfc, 0xce, 0xfa, 0x7e, 0x30, 0x61, 0x36, 0x7f, 0x1d, 0x57, 0xa4, 0xe7,
            0x45, 0x5a, 0x03, 0x88, 0xda, 0xce, 0x60, 0xb6, 0xa3, 0x92, 0xf3, 0x28, 0xc2, 0xb9,
            0x71, 0xb2, 0xfe, 0x78,
        ];
        assert_eq!(text, blocks);
    }

    #[test]
    fn keys_do_not_show_in_messages() {
        let keys = Keys {
            footer: b"0123456789012345".to_vec(),
            ..Keys::default()
        };
        assert!(!format!("{keys:?}").contains("48"));
    }
}
