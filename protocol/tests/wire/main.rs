//! What goes over the wire: golden files of every message, and properties of the codecs.

#[cfg(test)]
mod golden;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod strategies;
