// What the tests of formats share: a file with its columns, a column copied to the host, and the
// comparison of two arrays with all below them.

#ifndef GDS_CUDA_TESTS_COLUMNS_CUH
#define GDS_CUDA_TESTS_COLUMNS_CUH

#include "check.cuh"

// A file with the columns that were loaded of it, in the memory of one context.
class Loaded {
  public:
    Loaded(gds_context_t *context, const std::string &path) {
        GDS_OK(gds_file_open(context, path.c_str(), GDS_FILE_READ, &file_));
        status = load();
    }
    ~Loaded() {
        gds_columns_close(columns);
        gds_file_close(file_);
    }
    Loaded(const Loaded &) = delete;
    Loaded &operator=(const Loaded &) = delete;

    gds_columns_t *columns = nullptr;
    gds_status_t status;

  private:
    gds_status_t load() {
        int32_t format = 0;
        GDS_OK(gds_format_detect(file_, &format));
        if (format == GDS_FORMAT_PARQUET) {
            gds_parquet_t *parquet = nullptr;
            gds_status_t opened = gds_parquet_open(file_, nullptr, &parquet);
            if (opened == GDS_STATUS_OK) opened = gds_parquet_load(parquet, nullptr, &columns);
            gds_parquet_close(parquet);
            return opened;
        }
        gds_arrow_t *arrow = nullptr;
        gds_arrow_selection_t selection = GDS_ARROW_SELECTION_INIT;
        selection.validate = GDS_SWITCH_ON;
        gds_status_t opened = gds_arrow_open(file_, &arrow);
        if (opened == GDS_STATUS_OK) opened = gds_arrow_load(arrow, &selection, &columns);
        gds_arrow_close(arrow);
        return opened;
    }

    gds_file_t *file_ = nullptr;
};

inline gds_context_t *open_host() {
    gds_config_t config = GDS_CONFIG_INIT;
    config.gpu_device = GDS_DEVICE_HOST;
    gds_context_t *context = nullptr;
    GDS_OK(gds_context_open(&config, &context));
    return context;
}

// Bytes of a value of one of Arrow's types with a fixed width, 0 of the others.
inline uint64_t width_of(const std::string &format) {
    switch (format[0]) {
    case 'c': case 'C': return 1;
    case 's': case 'S': case 'e': return 2;
    case 'i': case 'I': case 'f': return 4;
    case 'l': case 'L': case 'g': return 8;
    case 'w': return strtoull(format.c_str() + 2, nullptr, 10);
    case 'd': {
        // "d:PRECISION,SCALE" or "d:PRECISION,SCALE,BITS".
        const size_t last = format.rfind(',');
        if (last == format.find(',')) return 16;
        return strtoull(format.c_str() + last + 1, nullptr, 10) / 8;
    }
    case 't': {
        const std::string kind = format.substr(1, 2);
        if (kind == "dD" || kind == "ts" || kind == "tm" || kind == "iM") return 4;
        return kind == "in" ? 16 : 8;
    }
    default: return 0;
    }
}

// A column of a batch, copied to the host.
struct Column {
    gds_column_t about = GDS_COLUMN_INIT;
    std::vector<std::vector<uint8_t>> buffers;

    bool valid(uint64_t n) const {
        // The first buffer of a union has its types.
        if (strncmp(about.format, "+u", 2) == 0) return true;
        n += about.offset;
        return buffers.empty() || buffers[0].empty() || (buffers[0][n / 8] >> (n % 8) & 1);
    }

    // The bytes of a value; empty for types that are made of others.
    std::string value(uint64_t n) const {
        n += about.offset;
        const std::string format = about.format;
        if (format == "b") return std::string(1, (char)(buffers[1][n / 8] >> (n % 8) & 1));
        if (format == "u" || format == "z") return between_ends<uint32_t>(n);
        if (format == "U" || format == "Z") return between_ends<uint64_t>(n);
        if (format == "vu" || format == "vz") return viewed(n);
        const uint64_t width = width_of(format);
        return std::string((const char *)buffers[width > 0 ? 1 : 0].data() + width * n, width);
    }

  private:
    template <typename End> std::string between_ends(uint64_t n) const {
        End ends[2];
        memcpy(ends, &buffers[1][sizeof(End) * n], sizeof ends);
        return std::string((const char *)buffers[2].data() + ends[0], ends[1] - ends[0]);
    }

    std::string viewed(uint64_t n) const {
        struct { uint32_t length, prefix, buffer, offset; } view;
        const uint8_t *at = &buffers[1][sizeof view * n];
        memcpy(&view, at, sizeof view);
        if (view.length <= 12) return std::string((const char *)at + 4, view.length);
        return std::string((const char *)buffers[2 + view.buffer].data() + view.offset,
                           view.length);
    }
};

inline Column column_at(const gds_columns_t *columns, uint64_t batch,
                        const std::vector<uint32_t> &path) {
    Column column;
    const uint32_t depth = (uint32_t)path.size();
    GDS_OK(gds_columns_column(columns, batch, path.data(), depth, &column.about));
    for (uint32_t n = 0; n < column.about.buffers; n++) {
        gds_column_buffer_t buffer;
        GDS_OK(gds_columns_buffer(columns, batch, path.data(), depth, n, &buffer));
        column.buffers.emplace_back(buffer.size);
        if (buffer.size > 0) {
            CHECK(buffer.address % 64 == 0, "%s: buffer %u is at %llx", column.about.name, n,
                  (unsigned long long)buffer.address);
            CUDA_OK(cudaMemcpy(column.buffers[n].data(), (const void *)buffer.address, buffer.size,
                               cudaMemcpyDefault));
        }
    }
    return column;
}

inline Column column_of(const gds_columns_t *columns, uint64_t batch, uint32_t number) {
    return column_at(columns, batch, {number});
}

// Whether the offsets of two lists are the same, from their first one on.
template <typename End> bool same_ends(const Column &a, const Column &b) {
    if (a.about.length == 0) return true;
    const uint64_t bytes = sizeof(End) * (a.about.length + 1);
    const uint64_t from = sizeof(End) * a.about.offset, other = sizeof(End) * b.about.offset;
    return a.buffers[1].size() >= from + bytes && b.buffers[1].size() >= other + bytes &&
           memcmp(&a.buffers[1][from], &b.buffers[1][other], bytes) == 0;
}

// Two arrays and all below them. What lies below a null of a struct may be anything: `wanted`,
// where it is not empty, has the rows that count.
inline void same_below(const gds_columns_t *ours, const gds_columns_t *theirs, uint64_t batch,
                       std::vector<uint32_t> path, const std::vector<bool> &wanted) {
    const Column a = column_at(ours, batch, path), b = column_at(theirs, batch, path);
    const std::string format = a.about.format;
    CHECK(format == b.about.format && a.about.length == b.about.length &&
              a.about.children == b.about.children &&
              a.about.has_dictionary == b.about.has_dictionary,
          "%s: %s of %llu and %s of %llu", a.about.name, a.about.format,
          (unsigned long long)a.about.length, b.about.format, (unsigned long long)b.about.length);
    std::vector<bool> there(a.about.length);
    for (uint64_t n = 0; n < a.about.length; n++) {
        if (!wanted.empty() && !wanted[n]) continue;
        there[n] = a.valid(n);
        CHECK(a.valid(n) == b.valid(n), "%s: validity of %llu", a.about.name,
              (unsigned long long)n);
        CHECK(!there[n] || format[0] == '+' || format == "n" || a.value(n) == b.value(n),
              "%s: value %llu differs", a.about.name, (unsigned long long)n);
    }
    const bool list = format == "+l" || format == "+m" || format == "+L";
    if (list) {
        CHECK(format == "+L" ? same_ends<uint64_t>(a, b) : same_ends<uint32_t>(a, b),
              "%s: offsets differ", a.about.name);
    }
    std::vector<bool> below;
    if (format == "+s") below = there;
    if (format.compare(0, 3, "+w:") == 0) {
        const size_t each = strtoull(format.c_str() + 3, nullptr, 10);
        for (bool row : there) below.insert(below.end(), each, row);
    }
    for (uint32_t child = 0; child < a.about.children; child++) {
        path.push_back(child);
        same_below(ours, theirs, batch, path, below);
        path.pop_back();
    }
    if (a.about.has_dictionary != 0) {
        path.push_back(GDS_COLUMNS_DICTIONARY);
        same_below(ours, theirs, batch, path, {});
    }
}

#endif
