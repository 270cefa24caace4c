//! The kernel side of the agent: field offsets, hook plan, load and attach, ring drain, counters.
