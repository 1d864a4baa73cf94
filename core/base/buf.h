/* A growing run of bytes, read from the front and written at the end.
 *
 * Ownership: embedded; {0} is a valid empty buffer; rs_buf_fini releases and leaves an empty one.
 * A NUL always follows the last byte once anything was written, so `rs_buf_text` is a C string.
 */
#pragma once

#include "core/base/error.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct rs_buf {
    char *data;
    size_t start, end, cap; /* live bytes are data[start..end) */
};

void rs_buf_fini(struct rs_buf *b);
static inline size_t rs_buf_len(const struct rs_buf *b)
{
    return b->end - b->start;
}
/* Borrowed until the next write. */
static inline char *rs_buf_head(const struct rs_buf *b)
{
    return b->data ? b->data + b->start : NULL;
}
const char *rs_buf_text(const struct rs_buf *b); /* "" when empty */
/* Room for `n` bytes at the end; fill it, then rs_buf_commit what was filled. */
char *rs_buf_reserve(struct rs_buf *b, size_t n);
void rs_buf_commit(struct rs_buf *b, size_t n);
void rs_buf_append(struct rs_buf *b, const void *data, size_t n);
void rs_buf_puts(struct rs_buf *b, const char *text);
void rs_buf_printf(struct rs_buf *b, const char *fmt, ...) RS_PRINTF(2, 3);
void rs_buf_consume(struct rs_buf *b, size_t n); /* from the front */
void rs_buf_clear(struct rs_buf *b);
/* Gives the bytes away as a malloc'ed C string and leaves an empty buffer. */
char *rs_buf_steal(struct rs_buf *b);
