/* What programs and replicas ask of the head: the operations of ASK (net/wire/PROTOCOL.md).
 *
 * Thread: the control thread.
 */
#pragma once

#include "core/base/cleanup.h"

#include <jansson.h>

struct rs_head;

/* The ANSWER, a new reference: what was asked for, or {"error": one line, "kind": class of the exception
 * that the program is to raise}. Never NULL, whatever `ask` is. */
json_t *rs_ask(struct rs_head *h, const json_t *ask);
