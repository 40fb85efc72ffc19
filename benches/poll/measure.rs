//! Counting: CPU time and allocations of this process, bytes it wrote to files, its peak memory. Wall clock is noise.

use std::alloc::System;
use std::fmt;
use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts what is asked of the system's allocator; that costs a few nanoseconds a time, which the figures include.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What one case took.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub case: String,
    pub users: usize,
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Allocations and reallocations.
    pub allocations: usize,
    /// Bytes that were allocated, most of them freed soon.
    pub allocated: usize,
    /// Bytes given to `write` and its like; what goes to sockets is not among them.
    pub written: u64,
    /// The most memory the process had, in bytes.
    pub peak: u64,
}

/// Adds up what happens while it runs.
pub struct Meter {
    figures: Figures,
}

impl Meter {
    pub fn new(case: &str, users: usize) -> Self {
        reset_peak();
        Self {
            figures: Figures {
                case: case.to_owned(),
                users,
                ..Figures::default()
            },
        }
    }

    /// Runs `work` and adds what it took.
    pub fn measure<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let (cpu, heap, written) = (cpu(), ALLOCATOR.stats(), written());
        let result = work();
        let after = ALLOCATOR.stats();
        let figures = &mut self.figures;
        figures.cpu += self::cpu() - cpu;
        figures.allocations += after.allocations + after.reallocations - heap.allocations - heap.reallocations;
        figures.allocated += after.bytes_allocated - heap.bytes_allocated;
        figures.written += self::written() - written;
        result
    }

    pub fn finish(mut self) -> Figures {
        self.figures.peak = field("/proc/self/status", "VmHWM:") * 1024;
        self.figures
    }
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn written() -> u64 {
    field("/proc/self/io", "wchar:")
}

/// Lets the peak begin at what is there now (proc(5), `clear_refs`).
fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").ok();
}

/// A number from one of Linux's tables about this process; 0 where it is not told.
fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

impl Figures {
    pub fn cpu_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3
    }

    pub fn peak_mb(&self) -> f64 {
        self.peak as f64 / 1e6
    }

    /// For the process that started this one.
    pub fn to_line(&self) -> String {
        let (cpu, written) = (self.cpu.as_nanos(), self.written);
        let (allocations, allocated) = (self.allocations, self.allocated);
        format!(
            "{}\t{}\t{cpu}\t{allocations}\t{allocated}\t{written}\t{}",
            self.case, self.users, self.peak
        )
    }

    /// Reads [`Self::to_line`] back.
    pub fn of_line(line: &str) -> Self {
        let mut words = line.split('\t');
        let case = words.next().unwrap().to_owned();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        Self {
            case,
            users: number() as usize,
            cpu: Duration::from_nanos(number()),
            allocations: number() as usize,
            allocated: number() as usize,
            written: number(),
            peak: number(),
        }
    }

    pub fn header() -> String {
        format!(
            "{:28} {:>8} {:>12} {:>9} {:>9} {:>12} {:>10} {:>11} {:>8}",
            "case", "users", "users/CPU s", "CPU ms", "µs/page", "allocations", "alloc. MB", "written kB", "peak MB"
        )
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:28} {:>8} {:>12.0} {:>9.1} {:>9.1} {:>12} {:>10.1} {:>11.1} {:>8.1}",
            self.case,
            self.users,
            self.users as f64 / self.cpu.as_secs_f64(),
            self.cpu_ms(),
            self.cpu_ms() * 1e3 / (self.users as f64 / 100.0),
            self.allocations,
            self.allocated as f64 / 1e6,
            self.written as f64 / 1e3,
            self.peak_mb()
        )
    }
}
