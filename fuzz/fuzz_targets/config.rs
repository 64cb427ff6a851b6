//! Configuration files: every text is taken or refused with a reason, and what is taken can be shown.

#![no_main]

use std::collections::BTreeMap;

use kagent_proxy::cli::ConfigArgs;
use kagent_proxy::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let path = std::env::temp_dir().join(format!("kagent-proxy-fuzz-{}.yaml", std::process::id()));
    std::fs::write(&path, text).expect("the temporary folder takes files");
    let args = ConfigArgs { config: Some(path), ..ConfigArgs::default() };
    match config::load(&args, &BTreeMap::new()) {
        Ok(loaded) => drop(config::view(&loaded.config, &loaded.sources)),
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
});
