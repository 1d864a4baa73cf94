/* The Python library that replicas import, as a zip archive inside this binary.
 *
 * The supervisor writes it to one file of the state directory and puts that file first on PYTHONPATH:
 * `python -m rserve.zygote` and `python -m rserve.replica` then start from it. The archive is the same for
 * every build of the same sources.
 */
#pragma once

#include <stddef.h>

/* The archive, rs_pyruntime_zip_size bytes. */
extern const unsigned char rs_pyruntime_zip[];
extern const size_t rs_pyruntime_zip_size;
