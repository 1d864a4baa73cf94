#include "core/base/buf.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void rs_buf_fini(struct rs_buf *b)
{
    free(b->data);
    *b = (struct rs_buf){0};
}

const char *rs_buf_text(const struct rs_buf *b)
{
    return b->data ? b->data + b->start : "";
}

char *rs_buf_reserve(struct rs_buf *b, size_t n)
{
    if (b->start && (b->start == b->end || b->end + n + 1 > b->cap)) {
        memmove(b->data, b->data + b->start, rs_buf_len(b));
        b->end -= b->start;
        b->start = 0;
    }
    b->data = rs_grow(b->data, &b->cap, b->end + n + 1, 1);
    return b->data + b->end;
}

void rs_buf_commit(struct rs_buf *b, size_t n)
{
    assert(b->end + n < b->cap);
    b->end += n;
    b->data[b->end] = '\0';
}

void rs_buf_append(struct rs_buf *b, const void *data, size_t n)
{
    char *to = rs_buf_reserve(b, n);

    if (n)
        memcpy(to, data, n);
    rs_buf_commit(b, n);
}

void rs_buf_puts(struct rs_buf *b, const char *text)
{
    rs_buf_append(b, text, strlen(text));
}

void rs_buf_printf(struct rs_buf *b, const char *fmt, ...)
{
    va_list args, again;
    char *to = rs_buf_reserve(b, 128);
    int n;

    va_start(args, fmt);
    va_copy(again, args);
    n = vsnprintf(to, 128, fmt, args);
    va_end(args);
    assert(n >= 0);
    if (n >= 128) {
        to = rs_buf_reserve(b, (size_t)n + 1);
        vsnprintf(to, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    rs_buf_commit(b, (size_t)n);
}

void rs_buf_consume(struct rs_buf *b, size_t n)
{
    assert(n <= rs_buf_len(b));
    b->start += n;
    if (b->start == b->end)
        rs_buf_clear(b);
}

void rs_buf_clear(struct rs_buf *b)
{
    b->start = b->end = 0;
    if (b->data)
        b->data[0] = '\0';
}

char *rs_buf_steal(struct rs_buf *b)
{
    char *text;

    rs_buf_append(b, "", 0);
    if (b->start)
        memmove(b->data, b->data + b->start, rs_buf_len(b) + 1);
    text = b->data;
    *b = (struct rs_buf){0};
    return text;
}
