/* Labels of nodes, and selectors of them.
 *
 * Labels are an object of texts: {"region": "eu"}. A selector is one, too; for each key the node must
 * have the label, with the value of the selector: "eu" this one, "!eu" another one or none, "in(a,b)"
 * one of these, "!in(a,b)" none of these.
 *
 * Ownership: json is borrowed, results are new references.
 * Layer:     core/resource includes core/base only.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/error.h"

#include <jansson.h>

/* Reads "region=eu,disk=ssd". Fails with RS_INVALID, quoting the pair. */
RS_MUST_CHECK int rs_labels_parse(json_t **ret, const char *text, struct rs_error *err);
/* Whether labels meet a selector. NULL or {}: every node does. What is no text meets nothing. */
bool rs_labels_match(const json_t *labels, const json_t *selector);
/* Appends "region=eu, disk=!ssd". */
void rs_labels_print(struct rs_buf *out, const json_t *selector);
