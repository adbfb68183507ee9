//! One contract, every device that opens here: the host always, CUDA where there is a GPU.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "a test says what it skips")]

mod device_support;

use std::sync::atomic::{AtomicU64, Ordering};

use device_support::{Lane, Memory, Pinned, on_every_device, pattern};
use gds_rs::ErrorKind;
use gds_rs::device::{CopyPiece, MemoryKind};

#[test]
fn device_memory_is_aligned_and_keeps_what_is_copied_there() {
    on_every_device(|device| {
        let lane = Lane::new(device);
        for size in [1, 255, 4096, 4097, (3 << 20) + 5] {
            let memory = Memory::new(device, size);
            let alignment = if device.is_host() { 4096 } else { 256 };
            assert_eq!(memory.1 % alignment, 0);
            let bytes = pattern(size, size as u32);
            memory.fill(&bytes, lane.1);
            assert!(memory.read(size, lane.1) == bytes, "{size} bytes");
        }
        let (free, total) = device.memory_free_total().unwrap();
        assert!(0 < free && free <= total, "{free} of {total}");
    });
}

#[test]
fn pinned_memory_is_aligned_zeroed_and_copies_both_ways() {
    on_every_device(|device| {
        let lane = Lane::new(device);
        for size in [1, 513, 4096, 5000, 1 << 20] {
            for _ in 0..3 {
                let (from, to) = (Pinned::new(device, size), Pinned::new(device, size));
                assert_eq!(from.1 as usize % 4096, 0);
                assert!(
                    from.bytes()
                        .iter()
                        .chain(to.bytes().iter())
                        .all(|b| *b == 0)
                );
                from.bytes().copy_from_slice(&pattern(size, 77));
                let memory = Memory::new(device, size);
                // SAFETY: all three ranges live until the stream is synchronised.
                unsafe {
                    device
                        .copy_to_device(memory.1, from.1, size, lane.1)
                        .unwrap();
                    device
                        .copy_from_device(to.1, memory.1, size, lane.1)
                        .unwrap();
                }
                device.stream_synchronize(lane.1).unwrap();
                assert!(from.bytes() == to.bytes(), "{size} bytes");
                // Dirty what is freed, so that the next allocation shows whether it is zeroed.
                to.bytes().fill(0xAB);
            }
        }
    });
}

#[test]
fn allocations_that_cannot_be_are_answered_with_the_size() {
    on_every_device(|device| {
        for size in [u64::MAX, u64::MAX - 4095, 1 << 60, 1 << 50] {
            let error = device.memory_alloc(size).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::OutOfDeviceMemory,
                "{size}: {error:?}"
            );
            assert!(error.message().contains(&size.to_string()), "{error}");
            let error = device.pinned_alloc(size as usize).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::OutOfHostMemory,
                "{size}: {error:?}"
            );
            assert!(error.message().contains(&size.to_string()), "{error}");
        }
        assert_eq!(
            device.memory_alloc(0).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
        assert_eq!(
            device.pinned_alloc(0).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
        // The device still works.
        let lane = Lane::new(device);
        let memory = Memory::new(device, 4096);
        memory.fill(&[7; 4096], lane.1);
        assert_eq!(memory.read(4096, lane.1), [7; 4096]);
    });
}

/// Sizes and gaps of pieces: odd ones, pages, and one that many warps share.
fn shapes() -> Vec<(usize, usize)> {
    let mut shapes = vec![(0, 3)];
    shapes.extend((1..120).map(|i| (i * 37 % 4200 + 1, i % 19)));
    shapes.extend([
        (4096, 0),
        (4096, 1),
        (4095, 0),
        (4097, 13),
        (1, 0),
        (300_007, 7),
    ]);
    shapes
}

/// Lists pieces from `source` to `destination`, where they lie in another order, and tells
/// [offset in source, offset in destination, size] of each.
fn pieces(source: u64, destination: u64, into: &Pinned) -> Vec<[usize; 3]> {
    let shapes = shapes();
    let (mut from, mut to) = (0, 0);
    let mut plan: Vec<[usize; 3]> = shapes
        .iter()
        .map(|(size, gap)| {
            let at = from + gap;
            from = at + size;
            [at, 0, *size]
        })
        .collect();
    for piece in plan.iter_mut().rev() {
        piece[1] = to + 5;
        to = piece[1] + piece[2];
    }
    assert!(plan.len() * size_of::<CopyPiece>() <= into.2);
    for (i, [at, to, size]) in plan.iter().enumerate() {
        let piece = CopyPiece {
            source: source + *at as u64,
            destination: destination + *to as u64,
            size: *size as u64,
        };
        // SAFETY: `into` holds that many entries and is aligned to a page.
        unsafe { into.1.cast::<CopyPiece>().add(i).write(piece) };
    }
    plan
}

const ROOM: usize = 1 << 20;

#[test]
fn pieces_scatter_to_the_device_and_gather_back() {
    on_every_device(|device| {
        if !device.is_host() && device.info().compute_capability < 75 {
            println!("skipped: the copy kernel needs compute capability 7.5");
            return;
        }
        let lane = Lane::new(device);
        let (staging, list) = (Pinned::new(device, ROOM), Pinned::new(device, 1 << 16));
        let memory = Memory::new(device, ROOM);
        staging.bytes().copy_from_slice(&pattern(ROOM, 5));
        memory.fill(&vec![0x11; ROOM], lane.1);

        let plan = pieces(staging.1 as u64, memory.1, &list);
        // SAFETY: list, staging and memory live until the stream is synchronised.
        unsafe { device.copy_pieces(list.1.cast(), plan.len(), lane.1) }.unwrap();
        device.stream_synchronize(lane.1).unwrap();
        let mut expected = vec![0x11; ROOM];
        for [at, to, size] in &plan {
            expected[*to..to + size].copy_from_slice(&staging.bytes()[*at..at + size]);
        }
        assert!(memory.read(ROOM, lane.1) == expected, "scatter");

        // Back, from where the pieces are to where other gaps are.
        staging.bytes().fill(0x22);
        let plan = pieces(memory.1, staging.1 as u64, &list);
        // SAFETY: as above.
        unsafe { device.copy_pieces(list.1.cast(), plan.len(), lane.1) }.unwrap();
        device.stream_synchronize(lane.1).unwrap();
        let mut gathered = vec![0x22; ROOM];
        for [at, to, size] in &plan {
            gathered[*to..to + size].copy_from_slice(&expected[*at..at + size]);
        }
        assert!(staging.bytes() == &gathered[..], "gather");
    });
}

#[test]
fn more_pieces_than_warps_and_none_at_all() {
    on_every_device(|device| {
        if !device.is_host() && device.info().compute_capability < 75 {
            println!("skipped: the copy kernel needs compute capability 7.5");
            return;
        }
        let (count, page) = (20_000, 512);
        let lane = Lane::new(device);
        let staging = Pinned::new(device, count * page);
        let list = Pinned::new(device, count * size_of::<CopyPiece>());
        let memory = Memory::new(device, count * page);
        staging.bytes().copy_from_slice(&pattern(count * page, 9));
        for i in 0..count {
            let to = (i * 7919) % count;
            let piece = CopyPiece {
                source: staging.1 as u64 + (i * page) as u64,
                destination: memory.1 + (to * page) as u64,
                size: page as u64,
            };
            // SAFETY: the list has room for `count` entries and is aligned to a page.
            unsafe { list.1.cast::<CopyPiece>().add(i).write(piece) };
        }
        // SAFETY: no piece is read for a count of 0; the rest lives until the stream is drained.
        unsafe {
            device.copy_pieces(std::ptr::null(), 0, lane.1).unwrap();
            device.copy_pieces(list.1.cast(), count, lane.1).unwrap();
        }
        device.stream_synchronize(lane.1).unwrap();
        let got = memory.read(count * page, lane.1);
        for i in 0..count {
            let to = (i * 7919) % count * page;
            assert!(
                got[to..to + page] == staging.bytes()[i * page..(i + 1) * page],
                "piece {i}"
            );
        }
    });
}

#[test]
fn pointers_are_told_apart() {
    on_every_device(|device| {
        let memory = Memory::new(device, 10_000);
        let info = device.pointer_info(memory.1 + 9_999).unwrap();
        assert_eq!((info.kind, info.base), (MemoryKind::Device, memory.1));
        assert!(info.size >= 10_000);
        let pinned = Pinned::new(device, 10_000);
        let info = device.pointer_info(pinned.1 as u64 + 5_000).unwrap();
        assert_eq!(info.kind, MemoryKind::Pinned);
        let heap = Box::new([0_u8; 100]);
        for address in [0, heap.as_ptr() as u64, 8, u64::MAX] {
            let info = device.pointer_info(address).unwrap();
            assert_eq!(info.kind, MemoryKind::Pageable, "{address:#x}");
            assert_eq!((info.base, info.size), (address, 0));
        }
        let freed = {
            let memory = Memory::new(device, 64 << 20);
            memory.1
        };
        assert_eq!(
            device.pointer_info(freed).unwrap().kind,
            MemoryKind::Pageable
        );
    });
}

#[test]
fn registered_memory_is_pinned_until_it_is_not() {
    on_every_device(|device| {
        let size = 1 << 20;
        let layout = std::alloc::Layout::from_size_align(size, 4096).unwrap();
        // SAFETY: the layout is not empty.
        let pointer = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!pointer.is_null());
        let kind = || device.pointer_info(pointer as u64 + 100).unwrap().kind;
        assert_eq!(kind(), MemoryKind::Pageable);
        // SAFETY: the range is mapped until it is unregistered.
        unsafe { device.host_register(pointer, size, false) }.unwrap();
        assert_eq!(kind(), MemoryKind::Pinned);
        // SAFETY: as above.
        let again = unsafe { device.host_register(pointer, size, false) }.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::InvalidArgument, "{again:?}");
        // SAFETY: registered above; no copy uses it.
        unsafe { device.host_unregister(pointer) };
        assert_eq!(kind(), MemoryKind::Pageable);
        // SAFETY: allocated above with this layout.
        unsafe { std::alloc::dealloc(pointer, layout) };
    });
}

#[test]
fn a_read_only_file_mapping_can_be_registered_and_copied() {
    use std::os::fd::AsRawFd;
    on_every_device(|device| {
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let size = 1 << 20;
        assert!(file.metadata().unwrap().len() >= size as u64);
        // SAFETY: a fresh mapping of a file that nobody writes while the test runs.
        let mapped = unsafe {
            let (null, fd) = (std::ptr::null_mut(), file.as_raw_fd());
            libc::mmap(null, size, libc::PROT_READ, libc::MAP_SHARED, fd, 0)
        };
        assert_ne!(mapped, libc::MAP_FAILED);
        let pointer = mapped.cast::<u8>();
        // SAFETY: the range is mapped until after it is unregistered.
        let result = unsafe { device.host_register(pointer, size, true) };
        if device.info().register_read_only {
            result.unwrap();
            let lane = Lane::new(device);
            let memory = Memory::new(device, size);
            // SAFETY: the mapping is readable for `size` bytes.
            let bytes = unsafe { std::slice::from_raw_parts(pointer, size) };
            memory.fill(bytes, lane.1);
            assert!(memory.read(size, lane.1) == bytes);
            // SAFETY: registered above; the stream is drained.
            unsafe { device.host_unregister(pointer) };
        } else {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::NotSupported);
        }
        // SAFETY: mapped above, unmapped once.
        unsafe { libc::munmap(mapped, size) };
    });
}

#[test]
fn events_pass_with_their_stream_and_order_others() {
    on_every_device(|device| {
        let (first, second) = (Lane::new(device), Lane::new(device));
        let event = device.event_create().unwrap();
        assert!(
            device.event_query(event).unwrap(),
            "a fresh event counts as passed"
        );
        let size = 4 << 20;
        let (from, to) = (Pinned::new(device, size), Pinned::new(device, size));
        let memory = Memory::new(device, size);
        memory.fill(&vec![1; size], first.1);
        from.bytes().copy_from_slice(&pattern(size, 3));

        // SAFETY: all ranges live until both streams are synchronised.
        unsafe { device.copy_to_device(memory.1, from.1, size, first.1) }.unwrap();
        device.event_record(event, first.1).unwrap();
        device.stream_wait_event(second.1, event).unwrap();
        // SAFETY: as above.
        unsafe { device.copy_from_device(to.1, memory.1, size, second.1) }.unwrap();
        device.event_synchronize(event).unwrap();
        assert!(device.event_query(event).unwrap());
        device.stream_synchronize(second.1).unwrap();
        assert!(from.bytes() == to.bytes(), "the second stream did not wait");
        device.stream_synchronize(first.1).unwrap();
        // SAFETY: created above and not used again.
        unsafe { device.event_destroy(event) };
    });
}

#[test]
fn a_stream_move_copies_what_is_published_while_later_work_waits() {
    use gds_rs::device::{STREAM_MOVE_BLOCKS, StreamControl, StreamEntry};
    on_every_device(|device| {
        let (lane, size) = (Lane::new(device), 3 << 20);
        let (from, to) = (Pinned::new(device, size), Pinned::new(device, size));
        let memory = Memory::new(device, size);
        let block = Pinned::new(device, 4096);
        let start = block.1 as u64;
        let control = block.1.cast::<StreamControl>();
        let fresh = StreamControl {
            started: 0.into(),
            closed: 0.into(),
            published: 0.into(),
            capacity: 4,
            ring: start + 1024,
            progress: start + 512,
        };
        // SAFETY: the block is pinned, large enough and outlives the stream.
        let launched = unsafe {
            control.write(fresh);
            device.stream_move(control, lane.1)
        };
        if device.is_host() {
            assert_eq!(launched.unwrap_err().kind(), ErrorKind::NotSupported);
            return;
        }
        launched.unwrap();
        // SAFETY: ordered behind the kernel; both ranges outlive the stream.
        unsafe { device.copy_from_device(to.1, memory.1, size, lane.1) }.unwrap();
        from.bytes().copy_from_slice(&pattern(size, 5));
        // SAFETY: written above; shared through its atomic fields.
        let control = unsafe { &*control };
        let piece = size as u64 / 6;
        for entry in 0..6u64 {
            let at = entry as usize % 4;
            // SAFETY: inside the block, and the kernel has passed the last use of these places.
            unsafe {
                let pieces = block.1.add(2048).cast::<CopyPiece>().add(at);
                pieces.write(CopyPiece {
                    source: from.1 as u64 + entry * piece,
                    destination: memory.1 + entry * piece,
                    size: piece,
                });
                let place = block.1.add(1024).cast::<StreamEntry>().add(at);
                place.write_volatile(StreamEntry {
                    pieces: pieces as u64,
                    count: 1,
                });
            }
            control.published.store(entry + 1, Ordering::Release);
            for word in 0..STREAM_MOVE_BLOCKS {
                // SAFETY: a progress word.
                let word = unsafe { &*block.1.add(512).cast::<AtomicU64>().add(word) };
                while word.load(Ordering::Acquire) <= entry {
                    std::hint::spin_loop();
                }
            }
        }
        assert_eq!(control.started.load(Ordering::Acquire), 1);
        control.closed.store(1, Ordering::Release);
        device.stream_synchronize(lane.1).unwrap();
        assert!(
            from.bytes() == to.bytes(),
            "later work in the stream did not wait"
        );
    });
}

#[test]
fn every_method_works_from_many_threads() {
    on_every_device(|device| {
        std::thread::scope(|scope| {
            for seed in 0..4 {
                scope.spawn(move || {
                    if seed % 2 == 0 {
                        device.adopt_thread().unwrap();
                    }
                    let lane = Lane::new(device);
                    for round in 0..20 {
                        let size = 1000 + 4099 * round;
                        let memory = Memory::new(device, size);
                        let bytes = pattern(size, seed * 100 + round as u32 + 1);
                        memory.fill(&bytes, lane.1);
                        assert!(memory.read(size, lane.1) == bytes);
                    }
                });
            }
        });
    });
}
