/* `rserve status --why`: the reasons of a head (GET /api/v1/why) as text. Pure. */
#pragma once

#include "core/base/buf.h"

#include <jansson.h>
#include <stdbool.h>

struct rs_why_style {
    size_t width; /* columns */
    bool color;
};

void rs_status_why(const json_t *answer, const struct rs_why_style *style, struct rs_buf *out);
