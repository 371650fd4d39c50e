//! The tensors of a folder: `model.safetensors`, or the parts that `model.safetensors.index.json` names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorInfo};
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::{Error, Result, checkpoint};

/// Memory-mapped tensor files; a tensor is copied when it is asked for.
pub(super) struct Files {
    dir: PathBuf,
    maps: Vec<Mmap>,
    /// File and place of each tensor; places count from the end of the file's header.
    tensors: BTreeMap<String, (usize, usize, TensorInfo)>,
}

impl Files {
    pub(super) fn open(dir: &Path) -> Result<Files> {
        let mut files = Files { dir: dir.to_owned(), maps: Vec::new(), tensors: BTreeMap::new() };
        for name in names(dir)? {
            files.add(&dir.join(name))?;
        }
        Ok(files)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the map is only read. A file that another program cuts meanwhile would end this one by a signal, as
        // any memory-mapped reader; nothing here writes to it.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        let header = SafeTensors::read_metadata(&map);
        let (length, metadata) =
            header.map_err(|error| Error::Foreign { path: path.to_owned(), problem: error.to_string() })?;
        let found = metadata.tensors().into_iter();
        let number = self.maps.len();
        self.tensors.extend(found.map(|(name, info)| (name, (number, 8 + length, info.clone()))));
        self.maps.push(map);
        Ok(())
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor in fp32.
    pub(super) fn tensor(&self, name: &str) -> Result<Tensor> {
        let foreign = |problem| Error::Foreign { path: self.dir.clone(), problem };
        let (file, base, info) =
            self.tensors.get(name).ok_or_else(|| foreign(format!("tensor {name} is missing")))?;
        let kind = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            other => return Err(foreign(format!("tensor {name} is stored as {other:?}"))),
        };
        let (start, end) = info.data_offsets;
        let bytes = self.maps[*file].get(base + start..base + end);
        let bytes = bytes.ok_or_else(|| foreign(format!("tensor {name} is cut off")))?;
        let shape: Vec<i64> = info.shape.iter().map(|n| *n as i64).collect();
        Ok(Tensor::f_from_data_size(bytes, &shape, kind)?.f_to_kind(Kind::Float)?)
    }
}

/// The names of the tensor files.
fn names(dir: &Path) -> Result<BTreeSet<String>> {
    let index = dir.join("model.safetensors.index.json");
    if dir.join("model.safetensors").exists() {
        return Ok(BTreeSet::from(["model.safetensors".to_owned()]));
    }
    if !index.exists() {
        let problem = "no model.safetensors (files of pickled tensors are not read: they are programs)";
        return Err(Error::Foreign { path: dir.to_owned(), problem: problem.to_owned() });
    }
    let json: Value = checkpoint::read_json(&index, "index of tensor files")?;
    let map = json["weight_map"].as_object().into_iter().flatten();
    let names: BTreeSet<String> = map.filter_map(|(_, file)| file.as_str().map(str::to_owned)).collect();
    // A name with a slash could lead out of the folder.
    match names.iter().find(|name| name.contains('/')) {
        Some(name) => Err(Error::Foreign { path: index, problem: format!("{name:?} is not in the folder") }),
        None => Ok(names),
    }
}
