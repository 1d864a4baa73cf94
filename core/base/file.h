/* Reading and writing all that was asked for, whatever a signal or the kernel makes of one call.
 *
 * Errors: -1 and errno. A file that ends too early is one: ENODATA (memfds come from processes that may
 *         cut them off meanwhile).
 * Thread: any.
 */
#pragma once

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

RS_MUST_CHECK int rs_file_read(int fd, void *to, size_t len, uint64_t at);
RS_MUST_CHECK int rs_file_write(int fd, const void *data, size_t len, uint64_t at);
/* `len` bytes at `from_at` of one file to `to_at` of another. */
RS_MUST_CHECK int rs_file_copy(int from, uint64_t from_at, int to, uint64_t to_at, uint64_t len);
