//! Vectors of documents in a Parquet file: one row a document, with an id and a list of floats.
//!
//! Only these two columns are decoded, a batch of rows at a time. Ids are strings or whole numbers; vectors are lists of
//! any kind (large, of fixed size) of half, single or double precision.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema};
use curate_core::Error;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::error::IoError;

/// Rows decoded at once.
const BATCH_ROWS: usize = 1024;

/// Reads ids and vectors.
pub struct VectorReader {
    path: PathBuf,
    columns: [String; 2],
    batches: ParquetRecordBatchReader,
    rows: u64,
}

/// Some rows of the file: ids as text, and the vectors.
pub struct VectorBatch {
    ids: ArrayRef,
    vectors: ArrayRef,
    first: u64,
    path: PathBuf,
    columns: [String; 2],
}

impl VectorReader {
    /// `id` is the name of the column of ids; `vector` that of the vectors, which need not be named if it is the only column
    /// of lists of floats.
    ///
    /// # Errors
    /// What is no Parquet file, and one without these columns.
    pub fn open(path: &Path, id: &str, vector: Option<&str>) -> curate_core::Result<Self> {
        let file = File::open(path).map_err(|e| IoError::file("open", path, e))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| damaged(path, e))?;
        let columns = choose(builder.schema(), id, vector).map_err(|what| damaged(path, what))?;
        let schema = builder.schema();
        let indices = columns.each_ref().map(|name| schema.index_of(name).expect("just found"));
        let mask = ProjectionMask::roots(builder.parquet_schema(), indices);
        let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
        let batches = batches.map_err(|e| damaged(path, e))?;
        Ok(Self { path: path.to_owned(), columns, batches, rows: 0 })
    }

    /// The next rows; `None` if there are no more.
    ///
    /// # Errors
    /// A damaged file; a file that cannot be read.
    pub fn advance(&mut self) -> curate_core::Result<Option<VectorBatch>> {
        let Some(batch) = self.batches.next() else { return Ok(None) };
        let batch = batch.map_err(|e| damaged(&self.path, e))?;
        let first = self.rows;
        self.rows += batch.num_rows() as u64;
        let [ids, vectors] = self.columns.each_ref().map(|name| column(&batch, name));
        let cast =
            |array: ArrayRef, to: &DataType| arrow_cast::cast(&array, to).map_err(|e| damaged(&self.path, e));
        let floats = DataType::new_large_list(DataType::Float32, true);
        Ok(Some(VectorBatch {
            ids: cast(ids, &DataType::LargeUtf8)?,
            vectors: cast(vectors, &floats)?,
            first,
            path: self.path.clone(),
            columns: self.columns.clone(),
        }))
    }
}

fn column(batch: &RecordBatch, name: &str) -> ArrayRef {
    ArrayRef::clone(batch.column_by_name(name).expect("the columns that were asked for are read"))
}

fn damaged(path: &Path, what: impl ToString) -> Error {
    Error::io(format!("cannot read embeddings from {}", path.display()), io::Error::other(what.to_string()))
}

/// The names of the columns, or what is wrong with the file.
fn choose(schema: &Schema, id: &str, vector: Option<&str>) -> Result<[String; 2], String> {
    let names = || schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    let find = |name: &str| {
        let found = schema.field_with_name(name);
        found.map_err(|_| format!("it has no column {name}; its columns are {}", names()))
    };
    let id = find(id)?;
    if !(id.data_type().is_integer()
        || matches!(id.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View))
    {
        let kind = id.data_type();
        return Err(format!("column {} is {kind}: expected strings or whole numbers", id.name()));
    }
    let vector = match vector {
        Some(name) => find(name)?.name().clone(),
        None => {
            let of_floats = schema.fields().iter().filter(|field| is_vector(field.data_type()));
            match of_floats.map(|field| field.name()).collect::<Vec<_>>()[..] {
                [only] => only.clone(),
                [] => {
                    return Err(format!("it has no column of lists of floats; its columns are {}", names()));
                }
                [first, second, ..] => {
                    return Err(format!(
                        "several columns are lists of floats, such as {first} and {second}: name one"
                    ));
                }
            }
        }
    };
    let kind = find(&vector)?.data_type();
    if !is_vector(kind) {
        return Err(format!("column {vector} is {kind}: expected lists of floats"));
    }
    Ok([id.name().clone(), vector])
}

fn is_vector(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            item.data_type().is_floating()
        }
        _ => false,
    }
}

impl VectorBatch {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The id of a row, and its vector in `out`, which is cleared first. What is null in a list is not-a-number.
    ///
    /// # Errors
    /// A row without an id or without a vector.
    pub fn row(&self, row: usize, out: &mut Vec<f32>) -> curate_core::Result<&str> {
        for (column, name) in [&self.ids, &self.vectors].into_iter().zip(&self.columns) {
            if column.is_null(row) {
                let number = self.first + row as u64;
                return Err(damaged(
                    &self.path,
                    format!("row {number}, counted from 0, has nothing in {name}"),
                ));
            }
        }
        let vector = self.vectors.as_list::<i64>().value(row);
        let vector = vector.as_primitive::<Float32Type>();
        out.clear();
        out.extend(vector.iter().map(|x| x.unwrap_or(f32::NAN)));
        Ok(self.ids.as_string::<i64>().value(row))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{FixedSizeListBuilder, Float64Builder, ListBuilder};
    use arrow_array::{Float32Array, Int64Array, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn vectors(rows: usize) -> ArrayRef {
        let mut list = ListBuilder::new(arrow_array::builder::Float32Builder::new());
        for row in 0..rows {
            list.append_value([Some(row as f32), Some(0.5)]);
        }
        Arc::new(list.finish())
    }

    fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        crate::write_atomically(path, &bytes).unwrap();
    }

    fn read(path: &Path, vector: Option<&str>) -> curate_core::Result<Vec<(String, Vec<f32>)>> {
        let mut reader = VectorReader::open(path, "id", vector)?;
        let mut rows = Vec::new();
        while let Some(batch) = reader.advance()? {
            for row in 0..batch.len() {
                let mut out = vec![9.0];
                let id = batch.row(row, &mut out)?.to_owned();
                rows.push((id, out));
            }
        }
        Ok(rows)
    }

    #[test]
    fn ids_and_vectors_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.parquet");
        let n = 2 * BATCH_ROWS + 7;
        let text = StringArray::from_iter_values((0..n).map(|i| format!("d{i}")));
        let other: ArrayRef = Arc::new(Float32Array::from(vec![1.0; n]));
        write(&path, vec![("other", other), ("emb", vectors(n)), ("id", Arc::new(text))]);
        let rows = read(&path, None).unwrap();
        assert_eq!(rows.len(), n);
        for (i, row) in rows.iter().enumerate() {
            assert_eq!(*row, (format!("d{i}"), vec![i as f32, 0.5]));
        }
        assert_eq!(read(&path, Some("emb")).unwrap(), rows);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7, -3]));
        let mut fixed = FixedSizeListBuilder::new(Float64Builder::new(), 1);
        for x in [1.5, 2.5] {
            fixed.values().append_value(x);
            fixed.append(true);
        }
        write(&path, vec![("id", numbers), ("v", Arc::new(fixed.finish()))]);
        let expected = [("7".to_owned(), vec![1.5]), ("-3".to_owned(), vec![2.5])];
        assert_eq!(read(&path, None).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.parquet");
        let check = |columns: Vec<(&str, ArrayRef)>, vector, expected: &str| {
            write(&path, columns);
            let error = read(&path, vector).unwrap_err();
            let cause = std::error::Error::source(&error).map_or(String::new(), ToString::to_string);
            assert!(cause.contains(expected), "{error}: {cause} lacks {expected}");
        };
        let ids = || Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef;
        let floats = || Arc::new(Float32Array::from(vec![1.0, 2.0])) as ArrayRef;
        check(vec![("key", ids()), ("v", vectors(2))], None, "no column id; its columns are key, v");
        check(vec![("id", floats()), ("v", vectors(2))], None, "column id is Float32");
        check(vec![("id", ids()), ("v", floats())], None, "no column of lists of floats");
        check(vec![("id", ids()), ("v", floats())], Some("v"), "column v is Float32");
        check(vec![("id", ids()), ("v", vectors(2)), ("w", vectors(2))], None, "such as v and w");
        let gap = Arc::new(StringArray::from(vec![Some("a"), None])) as ArrayRef;
        check(vec![("id", gap), ("v", vectors(2))], None, "row 1, counted from 0, has nothing in id");
        crate::write_atomically(&path, b"PAR1 cut").unwrap();
        assert!(read(&path, None).is_err());
        assert!(read(&dir.path().join("absent"), None).is_err());
    }
}
