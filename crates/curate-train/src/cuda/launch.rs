//! A kernel call as a value: name, grid, block and arguments, the same for the GPU and for the emulator of the tests.

use std::ffi::c_void;
use std::marker::PhantomData;

use tch::{Kind, Tensor};

use super::source::{Type, signatures};

/// A call of a kernel. The tensors it names are borrowed until it is handed over.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) kernel: String,
    pub(crate) grid: [u32; 2],
    pub(crate) block: u32,
    arguments: Vec<Argument>,
    tensors: PhantomData<&'a Tensor>,
}

#[derive(Clone, Copy, Debug)]
enum Argument {
    /// The address and the kind of the elements there.
    Address(*mut c_void, Kind),
    Nothing,
    Int(i32),
    Long(i64),
    Float(f32),
}

impl<'a> Launch<'a> {
    /// A call with blocks of `block` threads, and no arguments yet.
    pub(crate) fn new(kernel: impl Into<String>, grid: [i64; 2], block: u32) -> Launch<'a> {
        // A grid may be 2^31 - 1 by 65535; rows and pieces of a micro-batch are far below.
        let grid = grid.map(|n| u32::try_from(n).expect("a grid is a small count"));
        Launch { kernel: kernel.into(), grid, block, arguments: Vec::new(), tensors: PhantomData }
    }

    /// An array: a contiguous tensor on the device.
    ///
    /// # Panics
    /// If the tensor has gaps: a kernel would walk through them.
    pub(crate) fn tensor(mut self, tensor: &'a Tensor) -> Self {
        assert!(tensor.is_contiguous(), "{}: argument {} has gaps", self.kernel, self.arguments.len());
        self.arguments.push(Argument::Address(tensor.data_ptr(), tensor.kind()));
        self
    }

    /// An array, or null.
    pub(crate) fn optional(mut self, tensor: Option<&'a Tensor>) -> Self {
        match tensor {
            Some(tensor) => self.tensor(tensor),
            None => {
                self.arguments.push(Argument::Nothing);
                self
            }
        }
    }

    /// An `int`.
    ///
    /// # Panics
    /// If it is none: counts of a micro-batch are far below 2^31.
    pub(crate) fn int(mut self, value: i64) -> Self {
        self.arguments.push(Argument::Int(i32::try_from(value).expect("a count of a micro-batch")));
        self
    }

    /// A `long long`.
    pub(crate) fn long(mut self, value: i64) -> Self {
        self.arguments.push(Argument::Long(value));
        self
    }

    /// A `float`.
    pub(crate) fn float(mut self, value: f32) -> Self {
        self.arguments.push(Argument::Float(value));
        self
    }

    /// An `int` that is 0 or 1.
    pub(crate) fn flag(self, value: bool) -> Self {
        self.int(value.into())
    }

    /// Blocks of the grid; a call of none does nothing.
    pub(crate) fn blocks(&self) -> u64 {
        u64::from(self.grid[0]) * u64::from(self.grid[1])
    }

    /// The arguments as 8-byte cells, each starting with its value: what the driver wants addresses of.
    ///
    /// # Panics
    /// If they are not what the kernel takes: that is a mistake in this program, and the driver would not notice.
    pub(crate) fn cells(&self, element: Kind) -> Vec<u64> {
        let expected =
            signatures().get(&self.kernel).unwrap_or_else(|| panic!("there is no kernel {}", self.kernel));
        let fits = |argument: &Argument, of: &Type| match (argument, of) {
            (Argument::Address(_, kind), Type::Elements) => *kind == element,
            (Argument::Address(_, kind), Type::Floats) => *kind == Kind::Float,
            (Argument::Address(_, kind), Type::Doubles) => *kind == Kind::Double,
            (Argument::Address(_, kind), Type::Ints) => *kind == Kind::Int,
            (Argument::Address(_, kind), Type::Longs) => *kind == Kind::Int64,
            (Argument::Nothing, of) => !matches!(of, Type::Int | Type::Long | Type::Float),
            (Argument::Int(_), Type::Int)
            | (Argument::Long(_), Type::Long)
            | (Argument::Float(_), Type::Float) => true,
            _ => false,
        };
        let wrong = expected.iter().zip(&self.arguments).position(|(of, argument)| !fits(argument, of));
        assert!(
            expected.len() == self.arguments.len() && wrong.is_none(),
            "{}: takes {expected:?}, is given {:?}; first wrong: {wrong:?}",
            self.kernel,
            self.arguments
        );
        let cell = |argument: &Argument| match *argument {
            Argument::Address(address, _) => address as u64,
            Argument::Nothing => 0,
            Argument::Int(value) => u64::from(value.cast_unsigned()), // the low four bytes
            Argument::Long(value) => value.cast_unsigned(),
            Argument::Float(value) => u64::from(value.to_bits()),
        };
        self.arguments.iter().map(cell).collect()
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn sum_losses(total: &Tensor, losses: &Tensor) -> Vec<u64> {
        Launch::new("sum_losses", [1, 1], 32)
            .tensor(total)
            .tensor(losses)
            .int(3)
            .flag(true)
            .cells(Kind::Float)
    }

    #[test]
    fn arguments_are_held_against_the_source() {
        let doubles = Tensor::zeros([1], (Kind::Double, Device::Cpu));
        let floats = Tensor::zeros([3], (Kind::Float, Device::Cpu));
        let cells = sum_losses(&doubles, &floats);
        assert_eq!(cells, [doubles.data_ptr() as u64, floats.data_ptr() as u64, 3, 1]);
    }

    #[test]
    #[should_panic(expected = "first wrong: Some(0)")]
    fn an_array_of_another_kind_is_refused() {
        let floats = Tensor::zeros([3], (Kind::Float, Device::Cpu));
        sum_losses(&floats, &floats);
    }

    #[test]
    #[should_panic(expected = "sum_losses: takes [Doubles, Floats, Int, Int], is given []")]
    fn missing_arguments_are_refused() {
        Launch::new("sum_losses", [1, 1], 32).cells(Kind::Float);
    }
}
