//! Cubins: ELF files for NVIDIA's devices (EM_CUDA, 190).
//!
//! What is taken for granted of them: the architecture in e_flags, in the lowest byte up to ABI
//! version 7 and in the second byte from 8 on (LLVM, llvm/BinaryFormat/ELF.h: EF_CUDA_SM,
//! EF_CUDA_SM_MASK, ELFABIVERSION_CUDA_V1 and V2); kernels as FUNC symbols with bit 0x10 of
//! st_other (STO_CUDA_ENTRY, as `readelf` and cuobjdump show them) in sections `.text.NAME`;
//! sections of a kernel name its `.text` section in sh_info; `.nv.info` as records of a form, an
//! attribute and 2 bytes, with that many bytes behind them for form 4, where attribute 0x2f holds
//! a symbol and its registers, and 0x19 (form 3) the bytes of parameters (seen in files of nvcc
//! 13.0, and named EIATTR_REGCOUNT and EIATTR_CBANK_PARAM_SIZE by cuobjdump).

use std::collections::HashMap;

use super::file::Elf;
use super::section::Section;
use super::symbol::SymbolTable;
use crate::error::Result;

/// STO_CUDA_ENTRY.
const OTHER_ENTRY: u8 = 0x10;
const FORM_SIZED: u8 = 4;
const FORM_SHORT: u8 = 3;
const ATTRIBUTE_REGISTERS: u8 = 0x2f;
const ATTRIBUTE_PARAMETERS: u8 = 0x19;

/// A kernel of a cubin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Its symbol, which has its name.
    pub symbol: u64,
    /// The section of its code.
    pub section: u32,
    /// Bytes of code.
    pub code_size: u64,
    /// Registers of a thread, when the file says.
    pub registers: Option<u32>,
    /// Bytes of parameters, when the file says.
    pub parameter_size: Option<u32>,
    /// Bytes of shared memory that it always has.
    pub shared_size: u64,
    /// Bytes of constant bank 0, which holds its parameters.
    pub constant_size: u64,
}

/// What a cubin holds.
#[derive(Debug)]
pub struct Cubin {
    /// 90 for sm_90.
    pub arch: u32,
    /// The kernels, in the order of their symbols.
    pub kernels: Vec<Kernel>,
    symbols: Option<SymbolTable>,
}

/// What sections say of a kernel, by the section of its code.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    parameter_size: Option<u32>,
    shared_size: u64,
    constant_size: u64,
}

impl Cubin {
    /// Lists the kernels of a file; `None` when it is for no device of NVIDIA.
    ///
    /// # Errors
    /// `Corrupted` with the offset; what the source says.
    pub fn read(file: &Elf) -> Result<Option<Self>> {
        let header = file.header();
        if !header.is_cuda() {
            return Ok(None);
        }
        let shift = if header.abi_version >= 8 { 8 } else { 0 };
        let arch = header.flags >> shift & 0xff;
        let table = file.symbol_sections().next();
        let Some(table) = table else {
            return Ok(Some(Self {
                arch,
                kernels: Vec::new(),
                symbols: None,
            }));
        };
        let symbols = file.symbols(table.index)?;
        let kernels = kernels(file, &symbols)?;
        Ok(Some(Self {
            arch,
            kernels,
            symbols: Some(symbols),
        }))
    }

    /// The name of a kernel, as the compiler wrote it.
    ///
    /// # Errors
    /// `Corrupted`.
    pub fn name(&self, kernel: &Kernel) -> Result<&[u8]> {
        match &self.symbols {
            Some(symbols) => Ok(symbols.get(kernel.symbol)?.name),
            None => Ok(b""),
        }
    }
}

fn kernels(file: &Elf, symbols: &SymbolTable) -> Result<Vec<Kernel>> {
    let is_function = |kind| kind == object::elf::STT_FUNC.0;
    let (registers, told) = (registers(file)?, told(file)?);
    let mut kernels = Vec::new();
    for index in 0..symbols.len() {
        let symbol = symbols.get(index)?;
        if !is_function(symbol.kind) || symbol.other & OTHER_ENTRY == 0 || !symbol.is_in_section {
            continue;
        }
        let told = told.get(&symbol.section).copied().unwrap_or_default();
        kernels.push(Kernel {
            symbol: index,
            section: symbol.section,
            code_size: symbol.size,
            registers: u32::try_from(index)
                .ok()
                .and_then(|i| registers.get(&i).copied()),
            parameter_size: told.parameter_size,
            shared_size: told.shared_size,
            constant_size: told.constant_size,
        });
    }
    Ok(kernels)
}

/// Registers by symbol.
fn registers(file: &Elf) -> Result<HashMap<u32, u32>> {
    let mut found = HashMap::new();
    if let Some(section) = file.section_named(".nv.info") {
        each_attribute(&file.bytes(section)?, |form, attribute, bytes| {
            if let (FORM_SIZED, ATTRIBUTE_REGISTERS, Some((symbol, rest))) =
                (form, attribute, bytes.split_first_chunk())
                && let Some((count, _)) = rest.split_first_chunk()
            {
                found.insert(little(symbol), little(count));
            }
        });
    }
    Ok(found)
}

fn told(file: &Elf) -> Result<HashMap<u32, Told>> {
    let mut found: HashMap<u32, Told> = HashMap::new();
    let mut budget = file.budget();
    let starts = |section: &Section, with: &[u8]| file.section_name(section).starts_with(with);
    for section in file.sections().iter().filter(|s| s.info != 0) {
        if starts(section, b".nv.info.") {
            let told = found.entry(section.info).or_default();
            // Many sections may name one kernel; the first one counts.
            if told.parameter_size.is_none() {
                budget.take(file, section.size)?;
                told.parameter_size = parameters(&file.bytes(section)?);
            }
        } else if starts(section, b".nv.shared.") {
            found.entry(section.info).or_default().shared_size = section.size;
        } else if starts(section, b".nv.constant0.") {
            found.entry(section.info).or_default().constant_size = section.size;
        }
    }
    Ok(found)
}

fn parameters(info: &[u8]) -> Option<u32> {
    let mut size = None;
    each_attribute(info, |form, attribute, bytes| {
        if let (FORM_SHORT, ATTRIBUTE_PARAMETERS, [low, high]) = (form, attribute, bytes) {
            size = Some(u32::from(*low) | u32::from(*high) << 8);
        }
    });
    size
}

/// Calls with the form, the attribute and the value of each record, as far as they go.
fn each_attribute(bytes: &[u8], mut take: impl FnMut(u8, u8, &[u8])) {
    let mut rest = bytes;
    while let [form, attribute, low, high, behind @ ..] = rest {
        rest = behind;
        if *form != FORM_SIZED {
            take(*form, *attribute, &[*low, *high]);
            continue;
        }
        let size = usize::from(*low) | usize::from(*high) << 8;
        let Some((value, behind)) = rest.split_at_checked(size) else {
            return;
        };
        take(*form, *attribute, value);
        rest = behind;
    }
}

fn little(bytes: &[u8; 4]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}
