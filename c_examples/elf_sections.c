/*
 * Loads the code and the read-only data of an ELF file into device memory, and says what else
 * is in the file. Every byte is compared with a plain read.
 *
 *   elf_sections [FILE]      without FILE it reads its own program file
 *
 * GDS_DEVICE=host, cuda:0, ... chooses the device.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gds_rs.h"

#define GDS_CHECK(call)                                                                  \
    do {                                                                                 \
        gds_status_t status_ = (call);                                                   \
        if (status_ != GDS_STATUS_OK) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,                       \
                    gds_status_string(status_), gds_last_error_message());               \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

static void list_sections(const gds_elf_t *elf, const gds_elf_info_t *info)
{
    for (uint64_t i = 1; i < info->sections; i++) {
        gds_elf_section_t section = GDS_ELF_SECTION_INIT;
        GDS_CHECK(gds_elf_section(elf, i, &section));
        printf("  %-24s %10" PRIu64 " bytes at %" PRIu64 "\n", section.name, section.size,
               section.offset);
        if (section.kind == 2 || section.kind == 11) { /* SYMTAB, DYNSYM */
            uint64_t count;
            GDS_CHECK(gds_elf_symbol_count(elf, i, &count));
            gds_elf_symbol_t symbol = GDS_ELF_SYMBOL_INIT;
            GDS_CHECK(gds_elf_symbol(elf, i, count - 1, &symbol));
            printf("    %" PRIu64 " symbols, the last one is \"%s\"\n", count, symbol.name);
        }
    }
}

static void list_libraries(const gds_elf_t *elf)
{
    uint64_t count;
    GDS_CHECK(gds_elf_dynamic_count(elf, &count));
    for (uint64_t i = 0; i < count; i++) {
        gds_elf_dynamic_t entry = GDS_ELF_DYNAMIC_INIT;
        GDS_CHECK(gds_elf_dynamic(elf, i, &entry));
        if (entry.tag == 1) { /* DT_NEEDED */
            printf("  needs %s\n", entry.name);
        }
    }
}

/* What the file has of a part, read by the C library. */
static unsigned char *read_plainly(const char *path, const gds_elf_part_t *part)
{
    FILE *file = fopen(path, "rb");
    unsigned char *bytes = malloc(part->file_size ? part->file_size : 1);
    if (!file || !bytes || fseek(file, (long)part->file_offset, SEEK_SET) != 0 ||
        fread(bytes, 1, part->file_size, file) != part->file_size) {
        perror(path);
        exit(1);
    }
    fclose(file);
    return bytes;
}

/* Whether a part stands in pinned memory as in the file. */
static int is_equal(const unsigned char *memory, const gds_elf_part_t *part, const char *path)
{
    unsigned char *wanted = read_plainly(path, part);
    int equal = memcmp(memory + part->to_offset, wanted, part->size) == 0;
    free(wanted);
    return equal;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/proc/self/exe";
    gds_context_t *context;
    gds_file_t *file;
    gds_elf_t *elf;
    GDS_CHECK(gds_context_open(NULL, &context));
    GDS_CHECK(gds_file_open(context, path, GDS_FILE_READ, &file));
    GDS_CHECK(gds_elf_open(file, &elf));

    gds_elf_info_t info = GDS_ELF_INFO_INIT;
    GDS_CHECK(gds_elf_info(elf, &info));
    printf("%" PRIu32 " bit, machine %" PRIu32 ", %" PRIu64 " sections, %" PRIu64
           " segments, build id of %" PRIu64 " bytes\n",
           info.class_bits, info.machine, info.sections, info.segments, info.build_id_bytes);
    list_sections(elf, &info);
    list_libraries(elf);

    /* The bytes into device memory; at most 1 GiB, whatever the file says. */
    const char *names[] = { ".text", ".rodata*" };
    gds_elf_plan_t *plan;
    gds_buffer_t *buffer;
    GDS_CHECK(gds_elf_load(elf, GDS_ELF_SELECT_NAMES, names, 2, UINT64_C(1) << 30, &plan,
                           &buffer));
    gds_elf_plan_info_t total = GDS_ELF_PLAN_INFO_INIT;
    GDS_CHECK(gds_elf_plan_info(plan, &total));

    /* The same plan into pinned memory, where a plain loop can look at it. */
    gds_buffer_t *pinned;
    void *memory;
    GDS_CHECK(gds_buffer_alloc(context, GDS_MEMORY_PINNED, total.size_bytes, &pinned));
    GDS_CHECK(gds_buffer_address(pinned, &memory));
    GDS_CHECK(gds_elf_plan_read(plan, pinned, 0, NULL, NULL));
    int good = total.parts >= 2;
    for (uint64_t i = 0; i < total.parts; i++) {
        gds_elf_part_t part = GDS_ELF_PART_INIT;
        GDS_CHECK(gds_elf_plan_part(plan, i, &part));
        good = good && part.encoding == GDS_ELF_ENCODING_PLAIN &&
               is_equal(memory, &part, path);
    }
    printf("%" PRIu64 " sections, %" PRIu64 " bytes in device memory\n", total.parts,
           total.size_bytes);

    gds_buffer_free(pinned);
    gds_buffer_free(buffer);
    gds_elf_plan_destroy(plan);
    gds_elf_close(elf);
    gds_file_close(file);
    gds_context_close(context);
    puts(good ? "verified: every byte is that of the file" : "WRONG BYTES");
    return good ? 0 : 1;
}
