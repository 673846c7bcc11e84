//! How the clients tell what they got: an object on each line.

use std::{
    env,
    error::Error,
    fmt::Display,
    io::stdin,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

pub type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What the program is to do.
pub enum Role {
    Serve,
    Call { math: String, asks: String },
}

impl Role {
    pub fn from_arguments() -> Self {
        let words: Vec<_> = env::args().skip(1).collect();
        match &words[..] {
            [serve] if serve == "serve" => Self::Serve,
            [call, math, asks] if call == "call" => {
                Self::Call { math: math.clone(), asks: asks.clone() }
            }
            _ => panic!("serve | call MATH ASKS"),
        }
    }
}

/// Reports of progress that a client got.
pub type Reports = Arc<Mutex<Vec<f64>>>;

pub fn tell(name: &str, value: impl Into<Value>) {
    println!("{}", json!({ name: value.into() }));
}

/// Tells the outcome of a step.
pub fn step(name: &str, outcome: std::result::Result<impl Into<Value>, impl Display>) {
    match outcome {
        Ok(value) => tell(name, value),
        Err(error) => tell(name, json!({ "error": error.to_string() })),
    }
}

/// Has the connection cut, and returns when it is.
pub fn cut() -> Result {
    tell("cut", true);
    stdin().read_line(&mut String::new())?;
    Ok(())
}
