//! Mapped regions as the header shows them.

/// Ranges of files that are kept in device memory, up to a limit. May be used from many
/// threads at once. Made by gds_region_set_open(), given back to gds_region_set_close().
#[derive(Debug)]
pub struct gds_region_set_t {
    _private: [u8; 0],
}

/// A range of a file in device memory. May be used from many threads at once. Made by
/// gds_region_map(), given back to gds_region_unmap().
#[derive(Debug)]
pub struct gds_region_t {
    _private: [u8; 0],
}

/// How much memory a set may take. Start from GDS_REGION_CONFIG_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_region_config_t {
    /// sizeof(gds_region_config_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Device memory of all regions of the set, bytes, at least the alignment of the
    /// context. 0 picks buffer_size times prefetch_slots of the context, and twice that with
    /// double_buffering.
    pub limit_bytes: u64,
}

/// What is known of a region. Start from GDS_REGION_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_region_info_t {
    /// sizeof(gds_region_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Its first byte; a device address.
    pub address: u64,
    /// Offset in the file, bytes, as it was asked for.
    pub offset: u64,
    /// Bytes, as it was asked for.
    pub size: u64,
    /// Bytes that the file had of it when it was read; those behind are zero.
    pub valid_bytes: u64,
    /// Bytes of it that are marked dirty.
    pub dirty_bytes: u64,
    /// First byte of the memory that holds it; aligned as device memory is.
    pub aligned_address: u64,
    /// Offset in the file of that byte, a multiple of the alignment of the context.
    pub aligned_offset: u64,
    /// Bytes of that memory, a multiple of the alignment of the context.
    pub aligned_size: u64,
}

/// What a set has done and holds. Start from GDS_REGION_STATS_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_region_stats_t {
    /// sizeof(gds_region_stats_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Device memory that regions may take, bytes.
    pub limit_bytes: u64,
    /// Device memory that they take, bytes.
    pub mapped_bytes: u64,
    /// Device memory of regions that are held, bytes.
    pub held_bytes: u64,
    /// Bytes that are marked dirty.
    pub dirty_bytes: u64,
    /// Regions in device memory.
    pub regions: u64,
    /// Regions that are held.
    pub held_regions: u64,
    /// Mappings that were read from the file.
    pub loads: u64,
    /// Mappings that were found in device memory.
    pub hits: u64,
    /// Regions that made room for others.
    pub evictions: u64,
    /// Regions that were written before they made room.
    pub dirty_evictions: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// Writes that failed; their bytes are still dirty.
    pub write_errors: u64,
}
