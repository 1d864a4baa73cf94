/* rserve run --simulate TRACE FILE: what would the configuration do under that load? */
#pragma once

#include "cmd/serve.h"
#include "core/config/config.h"

struct rs_simulate_options {
    const char *trace;  /* NULL: none is to be simulated */
    bool json;          /* instead of the table */
    int64_t start_time; /* ns that a replica takes to be ready */
};

/* Takes `config`. An exit status, or -1. */
RS_MUST_CHECK int rs_simulate_command(struct rs_config *config,
                                      const struct rs_serve_options *serve,
                                      const struct rs_simulate_options *o, struct rs_error *err);
