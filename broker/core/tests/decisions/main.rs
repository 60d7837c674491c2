//! What the state machine decides, asked through its public interface only.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod authorize;
#[cfg(test)]
mod create;
#[cfg(test)]
mod idle;
#[cfg(test)]
mod query;
#[cfg(test)]
mod request_id;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod start;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod validate;
#[cfg(test)]
mod waves;
#[cfg(test)]
mod world;
