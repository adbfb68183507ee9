//! The tensors of a file or of a model in several files, and the plans that load them.

use std::collections::BTreeMap;
use std::path::Path;

use super::part::{Cut, Part};
use super::{Dtype, Tensor, corrupted};
use crate::base::limits::MODEL_FILES_MAX;
use crate::base::{align_down, align_up, is_aligned};
use crate::engine::{Buffer, Completion, File, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::detect::{Format, detect};
use crate::formats::plan::{Load, Plan, ReadOptions};
use crate::formats::{FileSource, gguf, safetensors};

/// Most that tensors may be aligned to in memory, bytes.
const ALIGN_MAX: u64 = 2 << 20;
/// A mirrored file begins at a multiple of this in its file and in memory.
const PAGE: u64 = 4096;

/// How tensors stand in the memory that they are loaded into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One after the other, each at a multiple of so many bytes (a power of two).
    Packed(u64),
    /// With the distances that they have in their file, from a multiple of 4096 bytes on: nothing
    /// is moved, and reads around the page cache land in place. A tensor is aligned as its file
    /// aligns it. The files of a model follow each other.
    Mirror,
}

impl Default for Layout {
    /// Packed, at multiples of 256 bytes, as CUDA allocates.
    fn default() -> Self {
        Self::Packed(256)
    }
}

/// A tensor, or a part of one, that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// Its index in `Tensors::tensors`.
    pub tensor: usize,
    /// Which part of it; `None` is all.
    pub cut: Option<Cut>,
}

/// Where a tensor that was asked for stands in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its index in `Tensors::tensors`.
    pub tensor: usize,
    /// Elements along each dimension: of the part that was asked for.
    pub shape: Vec<u64>,
    /// Offset in the destination, bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// The tensors of a safetensors or GGUF file, or of a model in several safetensors files.
#[derive(Debug, Clone)]
pub struct Tensors {
    format: Format,
    files: Vec<File>,
    tensors: Vec<Tensor>,
    /// Indexes of the tensors, by name.
    by_name: Vec<u32>,
    metadata: Vec<(String, String)>,
}

impl Tensors {
    /// Reads the metadata of a safetensors or GGUF file; of a `model.safetensors.index.json` that
    /// of all files it names, which lie beside it.
    ///
    /// # Errors
    /// `NotSupported` for files of other formats; `Corrupted` with the offset where a rule of the
    /// format is broken, and where an index and its files differ; what the files say.
    pub fn open(file: &File) -> Result<Self> {
        let source = FileSource::new(file)?;
        match detect(&source)?.format {
            Format::Gguf => {
                let header = gguf::Header::read(&source)?;
                let metadata = header.texts();
                let tensors = header.into_tensors();
                Self::new(Format::Gguf, vec![file.clone()], tensors, metadata)
            }
            Format::SafetensorsIndex => Self::open_index(file, &source),
            // What does not look like any format may be a damaged safetensors file: it has no
            // magic number, and its own reader says best what is wrong.
            Format::Safetensors | Format::Unknown => Self::open_files(std::slice::from_ref(file)),
            other => {
                let message = format!(
                    "read tensors of {}: it is {other}, not safetensors or GGUF",
                    file.path().display()
                );
                Err(Error::new(ErrorKind::NotSupported, message).with_path(file.path()))
            }
        }
    }

    /// Reads the metadata of safetensors files that are one model together.
    ///
    /// # Errors
    /// `InvalidArgument` for no files, too many, or files of several contexts; `Corrupted` where
    /// a rule of the format is broken, and for a tensor that two files have; what the files say.
    pub fn open_files(files: &[File]) -> Result<Self> {
        if files.is_empty() || files.len() > MODEL_FILES_MAX {
            let message = format!(
                "read a model of {} files; 1 to {MODEL_FILES_MAX} are allowed",
                files.len()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let (mut tensors, mut metadata) = (Vec::new(), BTreeMap::new());
        for (number, file) in files.iter().enumerate() {
            let header = safetensors::Header::read(&FileSource::new(file)?)?;
            let (of_file, said) = header.into_parts();
            tensors.extend(of_file.into_iter().map(|t| Tensor { file: number, ..t }));
            for (key, value) in said {
                // What the first file says counts.
                metadata.entry(key).or_insert(value);
            }
        }
        let metadata = metadata.into_iter().collect();
        Self::new(Format::Safetensors, files.to_vec(), tensors, metadata)
    }

    fn open_index(file: &File, source: &FileSource) -> Result<Self> {
        let index = safetensors::Index::read(source)?;
        let folder = file.path().parent().unwrap_or(Path::new("."));
        let context = file.context();
        let files = index.files().iter();
        let files: Vec<File> = files
            .map(|name| context.open_file(&folder.join(name), OpenMode::read_only()))
            .collect::<Result<_>>()?;
        if files.is_empty() {
            return Self::new(Format::SafetensorsIndex, files, Vec::new(), Vec::new());
        }
        let mut model = Self::open_files(&files)?;
        model.format = Format::SafetensorsIndex;
        for (name, wanted) in index.weights() {
            let found = model
                .find(name)
                .map(|i| &index.files()[model.tensors[i].file]);
            if found != Some(wanted) {
                let what = format!("the index: tensor {name:?} is not in {wanted:?}");
                return Err(corrupted(file.path(), 0, what));
            }
        }
        Ok(model)
    }

    fn new(
        format: Format,
        files: Vec<File>,
        tensors: Vec<Tensor>,
        metadata: Vec<(String, String)>,
    ) -> Result<Self> {
        let count = u32::try_from(tensors.len()).unwrap_or(u32::MAX);
        let mut by_name: Vec<u32> = (0..count).collect();
        by_name.sort_by(|a, b| tensors[*a as usize].name.cmp(&tensors[*b as usize].name));
        let same = |pair: &&[u32]| {
            let [a, b] = [pair[0] as usize, pair[1] as usize];
            tensors[a].name == tensors[b].name
        };
        if let Some(pair) = by_name.windows(2).find(same) {
            let twice = &tensors[pair[1] as usize];
            let path = files.get(twice.file).map_or(Path::new(""), |f| f.path());
            let what = format!(
                "tensor {:?} is in another file of the model too",
                twice.name
            );
            return Err(corrupted(path, 0, what));
        }
        Ok(Self {
            format,
            files,
            tensors,
            by_name,
            metadata,
        })
    }

    /// What was opened.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The files, as `Tensor::file` counts them.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// All tensors, file after file, in the order of each file.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// What the files say of themselves: `__metadata__`, or GGUF's keys with their values as
    /// text, lists as JSON.
    #[must_use]
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The index of the tensor with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        let name_of = |index: &u32| self.tensors[*index as usize].name.as_str();
        let found = self
            .by_name
            .binary_search_by(|index| name_of(index).cmp(name));
        found.ok().map(|at| self.by_name[at] as usize)
    }

    /// As `find`.
    ///
    /// # Errors
    /// `NotFound`, with names that are alike.
    pub fn index_of(&self, name: &str) -> Result<usize> {
        self.find(name).ok_or_else(|| {
            let path = self.files.first().map_or(Path::new(""), |f| f.path());
            let like = self.tensors.iter().map(|t| &*t.name);
            let like: Vec<&str> = like.filter(|n| n.contains(name)).take(3).collect();
            let hint = match like.is_empty() {
                true => format!("it has {} others", self.tensors.len()),
                false => format!("did you mean {}?", like.join(", ")),
            };
            let message = format!("{} has no tensor {name:?}; {hint}", path.display());
            Error::new(ErrorKind::NotFound, message).with_path(path)
        })
    }

    /// Everything.
    #[must_use]
    pub fn all(&self) -> Vec<Selection> {
        let all = 0..self.tensors.len();
        all.map(|tensor| Selection { tensor, cut: None }).collect()
    }

    /// Plans tensors into one destination. They are placed in the order in which they are given.
    ///
    /// # Errors
    /// `InvalidArgument` for an alignment that is no power of two up to 2 MiB, and for parts that
    /// do not stand together where the file is mirrored; `OutOfRange` for a tensor or part that
    /// is not there, and for too many pieces; `NotSupported` for a part within a block.
    pub fn plan(&self, wanted: &[Selection], layout: Layout) -> Result<(Load, Vec<Placed>)> {
        let mut parts = Vec::with_capacity(wanted.len());
        for selection in wanted {
            parts.push((selection.tensor, self.part(*selection)?));
        }
        let mut plans = vec![Plan::new(); self.files.len()];
        let offsets = match layout {
            Layout::Packed(align) => pack(&parts, align)?,
            Layout::Mirror => self.mirror(&parts)?,
        };
        let mut placed = Vec::with_capacity(parts.len());
        for ((tensor, part), offset) in parts.into_iter().zip(offsets) {
            part.add_to(&mut plans[self.tensors[tensor].file], offset)?;
            placed.push(Placed {
                tensor,
                size: part.size,
                shape: part.shape,
                offset,
            });
        }
        let mut load = Load::default();
        for (file, plan) in self.files.iter().zip(plans) {
            if plan.size() > 0 {
                load.push(file, plan);
            }
        }
        Ok((load, placed))
    }

    /// Reads tensors to places of the caller, all together, and waits.
    ///
    /// # Errors
    /// As `plan` and `Load::read`.
    pub fn read_into(
        &self,
        wanted: &[(Selection, Buffer, u64)],
        options: &ReadOptions,
    ) -> Result<Vec<Completion>> {
        let mut flying = Vec::with_capacity(wanted.len());
        let mut done = Vec::with_capacity(wanted.len());
        for (selection, to, offset) in wanted {
            let part = self.part(*selection)?;
            let mut plan = Plan::new();
            part.add_to(&mut plan, 0)?;
            let load = Load::new(&self.files[self.tensors[selection.tensor].file], plan);
            // Everything is checked, and what is plain is started, before anything is waited for.
            let ticket = match part.pieces() == 1 {
                true => Some(load.submit(to, *offset, options)?),
                false => None,
            };
            flying.push((ticket, load, to, *offset));
        }
        for (ticket, load, to, offset) in flying {
            done.push(match ticket {
                Some(ticket) => ticket.wait(None)?,
                None => load.read(to, offset, options)?,
            });
        }
        Ok(done)
    }

    /// The type, the shape and the bytes of a selection.
    ///
    /// # Errors
    /// `OutOfRange` and `NotSupported`, as `plan`.
    pub fn part_of(&self, selection: Selection) -> Result<(Dtype, Part)> {
        let part = self.part(selection)?;
        Ok((self.tensors[selection.tensor].dtype, part))
    }

    fn part(&self, selection: Selection) -> Result<Part> {
        let Some(tensor) = self.tensors.get(selection.tensor) else {
            let message = format!(
                "tensor number {} was asked for; there are {}",
                selection.tensor,
                self.tensors.len()
            );
            return Err(Error::new(ErrorKind::OutOfRange, message));
        };
        match selection.cut {
            Some(cut) => Part::of(tensor, cut),
            None => Ok(Part::whole(tensor)),
        }
    }

    /// Places with the distances of the files.
    fn mirror(&self, parts: &[(usize, Part)]) -> Result<Vec<u64>> {
        if let Some((tensor, _)) = parts.iter().find(|(_, part)| !part.is_contiguous()) {
            let message = format!(
                "mirror the file: the wanted part of tensor {} does not stand together in it; pack \
                 the tensors instead",
                self.tensors[*tensor].name
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let mut spans: Vec<Option<(u64, u64)>> = vec![None; self.files.len()];
        for (tensor, part) in parts {
            let (begin, end) = (part.file_offset(), part.file_offset() + part.size);
            let span = &mut spans[self.tensors[*tensor].file];
            let (first, last) = span.unwrap_or((begin, end));
            *span = Some((first.min(begin), last.max(end)));
        }
        let mut bases = Vec::with_capacity(spans.len());
        let mut at: u64 = 0;
        for span in spans {
            let (begin, end) = span.unwrap_or((0, 0));
            let begin = align_down(begin, PAGE);
            bases.push((at, begin));
            at = align_up(at.saturating_add(end - begin), PAGE).unwrap_or(u64::MAX);
        }
        let places = parts.iter().map(|(tensor, part)| {
            let (to, from) = bases[self.tensors[*tensor].file];
            to.saturating_add(part.file_offset() - from)
        });
        Ok(places.collect())
    }
}

/// Places one after the other.
fn pack(parts: &[(usize, Part)], align: u64) -> Result<Vec<u64>> {
    if !align.is_power_of_two() || align > ALIGN_MAX {
        let message = format!(
            "tensors aligned to {align} bytes: it must be a power of two up to {ALIGN_MAX}"
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let mut at: u64 = 0;
    let mut places = Vec::with_capacity(parts.len());
    for (_, part) in parts {
        debug_assert!(is_aligned(at, align));
        places.push(at);
        let end = at.checked_add(part.size);
        at = end.and_then(|end| align_up(end, align)).ok_or_else(|| {
            Error::new(
                ErrorKind::OutOfRange,
                "the tensors pass what can be addressed",
            )
        })?;
    }
    Ok(places)
}
