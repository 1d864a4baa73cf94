/* The certificate of HTTPS, before anything is started. */
#pragma once

#include "core/base/error.h"

struct rs_config;

/* 0 too where http_options name none. An error begins with the place of the option at fault:
 * "app.yaml:4:16: http_options.ssl_keyfile: cannot read ...". */
RS_MUST_CHECK int rs_certificate_check(const struct rs_config *c, struct rs_error *err);
