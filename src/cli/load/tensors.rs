//! `gds load` of safetensors and GGUF files.

use serde_json::json;

use super::{LoadArgs, Wanted};
use crate::cli::output::Outcome;
use crate::engine::File;
use crate::formats::tensor::{Cut, Layout, Selection, Tensors};

pub(super) fn wanted(file: &File, args: &LoadArgs) -> Outcome<Wanted> {
    let model = Tensors::open(file)?;
    let mut selections = match args.tensors.is_empty() {
        true => model.all(),
        false => {
            let mut chosen = Vec::new();
            for name in &args.tensors {
                let tensor = model.index_of(name)?;
                chosen.push(Selection { tensor, cut: None });
            }
            chosen
        }
    };
    if let Some((rank, of)) = args.share {
        for selection in &mut selections {
            let dimension = args.dimension;
            // What has too few dimensions is whole on every device, as biases and scales are.
            if dimension < model.tensors()[selection.tensor].shape.len() {
                selection.cut = Some(Cut::Share {
                    dimension,
                    rank,
                    of,
                });
            }
        }
    }
    let layout = if args.mirror {
        Layout::Mirror
    } else {
        Layout::default()
    };
    let (load, placed) = model.plan(&selections, layout)?;
    let tensors = placed.iter().map(|place| {
        let tensor = &model.tensors()[place.tensor];
        json!({
            "name": tensor.name,
            "dtype": tensor.dtype.name(),
            "shape": place.shape,
            "offset": place.offset,
            "bytes": place.size,
        })
    });
    Ok(Wanted {
        load,
        what: format!("{} tensors", placed.len()),
        json: json!({ "format": model.format().name(), "tensors": tensors.collect::<Vec<_>>() }),
    })
}
