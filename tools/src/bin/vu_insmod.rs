//! Loads modules. All of it is in `umvu_tools::insmod`.

fn main() -> std::process::ExitCode {
    umvu_tools::report::run_tool(umvu_tools::insmod::run)
}
