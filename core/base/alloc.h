/* Memory that never fails: out of memory ends the process with a message.
 *
 * For what the program itself sizes. Memory whose size a peer chooses is bounded first, by config.
 * Ownership: the caller frees with free().
 */
#pragma once

#include "core/base/error.h"

#include <stdarg.h>
#include <stddef.h>

void *rs_alloc(size_t size); /* zeroed; size 0 gives a valid pointer */
void *rs_realloc(void *old, size_t size);
/* Grows an array of `*cap` elements to hold at least `want`, doubling. Returns the new array. */
void *rs_grow(void *array, size_t *cap, size_t want, size_t elem_size);
void *rs_memdup(const void *data, size_t size);
char *rs_strdup(const char *text); /* NULL gives NULL */
char *rs_strndup(const char *text, size_t n);
char *rs_asprintf(const char *fmt, ...) RS_PRINTF(1, 2);
char *rs_vasprintf(const char *fmt, va_list args) RS_PRINTF(1, 0);
