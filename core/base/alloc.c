#include "core/base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *need(void *p)
{
    if (!p) {
        fputs("rserve: out of memory\n", stderr);
        abort();
    }
    return p;
}

void *rs_alloc(size_t size)
{
    return need(calloc(1, size ? size : 1));
}

void *rs_realloc(void *old, size_t size)
{
    return need(realloc(old, size ? size : 1));
}

void *rs_grow(void *array, size_t *cap, size_t want, size_t elem_size)
{
    size_t n = *cap ? *cap : 8;

    if (want <= *cap)
        return array;
    while (n < want)
        n *= 2;
    *cap = n;
    return need(reallocarray(array, n, elem_size));
}

void *rs_memdup(const void *data, size_t size)
{
    void *copy = rs_alloc(size);

    if (size)
        memcpy(copy, data, size);
    return copy;
}

char *rs_strdup(const char *text)
{
    return text ? need(strdup(text)) : NULL;
}

char *rs_strndup(const char *text, size_t n)
{
    return need(strndup(text, n));
}

char *rs_vasprintf(const char *fmt, va_list args)
{
    char *text = NULL;

    if (vasprintf(&text, fmt, args) < 0)
        need(NULL);
    return text;
}

char *rs_asprintf(const char *fmt, ...)
{
    va_list args;
    char *text;

    va_start(args, fmt);
    text = rs_vasprintf(fmt, args);
    va_end(args);
    return text;
}
