/* What Prometheus wants to know of every process, read from /proc: memory, CPU, descriptors, start. */
#pragma once

#include "core/base/buf.h"

/* Appends text exposition; a figure that cannot be read is left out. Any thread. */
void rs_process_text(struct rs_buf *out);
