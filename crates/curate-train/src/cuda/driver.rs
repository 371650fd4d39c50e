//! The CUDA driver's interface for modules and launches (libcuda.so.1, which comes with the driver).
//!
//! torch owns device, context and streams; here kernels are loaded into its context and launched on its stream.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr::null_mut;

use tch::Kind;

use super::launch::Launch;
use super::source::signatures;
use curate_shim::library::Library;

/// CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h.
const CAPABILITY: [c_int; 2] = [75, 76];

type Handle = *mut c_void;

/// The functions that are used, as cuda.h has them; all return 0 for success.
#[derive(Clone, Copy, Debug)]
struct Functions {
    context: unsafe extern "C" fn(*mut Handle) -> c_int,
    device: unsafe extern "C" fn(*mut c_int) -> c_int,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int,
    load: unsafe extern "C" fn(*mut Handle, *const c_void) -> c_int,
    function: unsafe extern "C" fn(*mut Handle, Handle, *const c_char) -> c_int,
    launch: unsafe extern "C" fn(
        Handle,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        Handle,
        *mut *mut c_void,
        *mut *mut c_void,
    ) -> c_int,
    error: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int,
}

/// The driver.
#[derive(Debug)]
pub(crate) struct Driver {
    functions: Functions,
    _library: Library,
}

/// The kernels for one element type, loaded into torch's context of one device.
#[derive(Debug)]
pub(crate) struct Module {
    element: Kind,
    kernels: BTreeMap<String, Handle>,
}

impl Driver {
    pub(crate) fn open() -> Result<Driver, String> {
        let library = Library::open(Path::new("libcuda.so.1"))?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field has the signature of cuda.h for this name.
                unsafe { library.function($name) }?
            };
        }
        let functions = Functions {
            context: function!(c"cuCtxGetCurrent"),
            device: function!(c"cuCtxGetDevice"),
            attribute: function!(c"cuDeviceGetAttribute"),
            load: function!(c"cuModuleLoadData"),
            function: function!(c"cuModuleGetFunction"),
            launch: function!(c"cuLaunchKernel"),
            error: function!(c"cuGetErrorString"),
        };
        Ok(Driver { functions, _library: library })
    }

    /// Compute capability of the device whose context is current: (9, 0) is a Hopper GPU.
    pub(crate) fn capability(&self) -> Result<(i32, i32), String> {
        let (mut context, mut device, mut parts) = (null_mut(), 0, [0; 2]);
        // SAFETY: the pointer is writable.
        self.check("cuCtxGetCurrent", unsafe { (self.functions.context)(&mut context) })?;
        if context.is_null() {
            return Err("torch has not made a CUDA context on this thread".to_owned());
        }
        // SAFETY: the pointer is writable, and a context is current.
        self.check("cuCtxGetDevice", unsafe { (self.functions.device)(&mut device) })?;
        for (part, attribute) in parts.iter_mut().zip(CAPABILITY) {
            // SAFETY: the pointer is writable, the device exists.
            self.check("cuDeviceGetAttribute", unsafe {
                (self.functions.attribute)(part, attribute, device)
            })?;
        }
        Ok(parts.into())
    }

    /// Loads machine code into the current context and finds all kernels in it.
    pub(crate) fn load(&self, cubin: &[u8], element: Kind) -> Result<Module, String> {
        let mut module = null_mut();
        // SAFETY: a whole cubin, which says its own length; the pointer is writable.
        self.check("cuModuleLoadData", unsafe { (self.functions.load)(&mut module, cubin.as_ptr().cast()) })?;
        let mut kernels = BTreeMap::new();
        for name in signatures().keys() {
            let c_name = CString::new(name.as_str()).expect("names have no NUL");
            let mut function = null_mut();
            // SAFETY: the module was just loaded, the name is NUL-terminated.
            let status = unsafe { (self.functions.function)(&mut function, module, c_name.as_ptr()) };
            self.check(&format!("cuModuleGetFunction({name})"), status)?;
            kernels.insert(name.clone(), function);
        }
        Ok(Module { element, kernels })
    }

    /// Puts a launch on a stream; what it computes is there when the stream comes to it.
    pub(crate) fn launch(
        &self,
        module: &Module,
        launch: &Launch<'_>,
        stream: *mut c_void,
    ) -> Result<(), String> {
        let cells = launch.cells(module.element);
        let mut addresses: Vec<*mut c_void> =
            cells.iter().map(|cell| std::ptr::from_ref(cell).cast_mut().cast()).collect();
        let [x, y] = launch.grid;
        // SAFETY: the arguments were held against the kernel's signature and are copied before the call returns; their
        // tensors lie on the device of the module, and torch frees memory in the order of the stream.
        let status = unsafe {
            (self.functions.launch)(
                module.kernels[&launch.kernel],
                x,
                y,
                1,
                launch.block,
                1,
                1,
                0,
                stream,
                addresses.as_mut_ptr(),
                null_mut(),
            )
        };
        self.check(&format!("launching {}", launch.kernel), status)
    }

    fn check(&self, what: &str, status: c_int) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: the pointer is writable.
        let known = unsafe { (self.functions.error)(status, &mut text) } == 0 && !text.is_null();
        if !known {
            return Err(format!("{what}: CUDA error {status}"));
        }
        // SAFETY: a string constant of the driver.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        Err(format!("{what}: CUDA error {status}: {text}"))
    }
}

/// The architecture to compile for, such as `sm_90`: the device's own, which must be one of those the compiler knows.
pub(crate) fn architecture(capability: (i32, i32), known: &[i32]) -> Result<String, String> {
    let (major, minor) = capability;
    if major < 8 {
        return Err(format!(
            "a GPU of compute capability 8.0 or later is needed, this one has {major}.{minor}"
        ));
    }
    if !known.contains(&(10 * major + minor)) {
        return Err(format!("NVRTC does not know compute capability {major}.{minor}, only {known:?}"));
    }
    Ok(format!("sm_{major}{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_architecture_is_the_devices_own() {
        let known = [75, 80, 86, 90, 100, 120];
        assert_eq!(architecture((9, 0), &known).as_deref(), Ok("sm_90"));
        assert_eq!(architecture((12, 0), &known).as_deref(), Ok("sm_120"));
        let problem = architecture((7, 5), &known).unwrap_err();
        assert_eq!(problem, "a GPU of compute capability 8.0 or later is needed, this one has 7.5");
        assert!(architecture((13, 0), &known).unwrap_err().contains("does not know compute capability 13.0"));
    }
}
