/* Command lines as tables: one table of options per verb gives parsing, --help and completion.
 *
 *     struct run_options {
 *         const char *name;
 *         int64_t port, timeout;
 *         bool check;
 *         json_t *resources;
 *     };
 *
 *     static const struct rs_option run_options[] = {
 *         {"check", 0, RS_OPT_FLAG, offsetof(struct run_options, check), NULL, "validate only"},
 *         {"port", 'p', RS_OPT_INT, offsetof(struct run_options, port), "PORT",
 *          "HTTP port (default 8000)", .min = 1, .max = 65535},
 *         {"resources", 0, RS_OPT_JSON, offsetof(struct run_options, resources), "JSON",
 *          "custom resources, such as '{\"disk\": 2}'"},
 *         {NULL},
 *     };
 *
 *     const struct rs_verb rs_verb_run = {
 *         .name = "run", .args = "FILE|MODULE:APP [KEY=VALUE]...", .min_args = 1, .max_args = -1,
 *         .summary = "serve an application on this machine", .options = run_options,
 *         .run = rs_cmd_run};
 *
 *     int rs_cmd_run(int argc, char *argv[], struct rs_error *err)
 *     {
 *         struct run_options o = {.port = 8000};
 *         int n = rs_verb_parse(&rs_verb_run, argc, argv, &o, err);
 *
 *         if (n < 0)
 *             return -1;
 *         ... argv[1] to argv[n] are the positional arguments ...
 *         rs_options_fini(run_options, &o);
 *     }
 *
 * Units:     SIZE is bytes, DURATION is nanoseconds, FIXED is 1/10000 (core/resource).
 * Ownership: strings borrow from argv; JSON and LIST values are the caller's until rs_options_fini.
 * Errors:    every refusal is RS_INVALID (exit status 2) and names the option, what was expected and
 *            what was found.
 */
#pragma once

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

enum rs_opt_kind {
    RS_OPT_FLAG,   /* bool: takes no value */
    RS_OPT_STRING, /* const char * */
    RS_OPT_INT,    /* int64_t */
    RS_OPT_FIXED,  /* int64_t, 1/10000: "0.5" is 5000 */
    RS_OPT_SIZE,   /* int64_t, bytes: 4096, 64K, 16M, 2G, 16MiB (powers of 1024), 10MB (of 1000) */
    RS_OPT_DURATION, /* int64_t, nanoseconds: 2, 0.5s, 500ms, 5m, 1h; a bare number is seconds */
    RS_OPT_CHOICE,   /* int: index into choices */
    RS_OPT_JSON,     /* json_t *: one JSON object; an earlier one is released */
    RS_OPT_LIST,     /* struct rs_opt_list: may be given several times */
    /* Options of other programs whose command lines are taken too; they have no field. */
    RS_OPT_IGNORED,      /* takes a value, has no effect */
    RS_OPT_IGNORED_FLAG, /* takes no value, or one after '='; has no effect */
    RS_OPT_REFUSED,      /* `help` says why */
};

struct rs_option {
    const char *name; /* long name without dashes; NULL ends the table */
    char letter;      /* short form, or 0 */
    enum rs_opt_kind kind;
    size_t offset;              /* of the field in the verb's struct */
    const char *value;          /* what stands for the value in help; NULL for a flag */
    const char *help;           /* one phrase, no final dot; help wraps it */
    int64_t min, max;           /* INT, FIXED, SIZE, DURATION: the range, unless both are 0 */
    const char *const *choices; /* CHOICE: ends with NULL */
};

struct rs_opt_list {
    const char **items;
    size_t count, cap;
};

/* Reads argv[1..] into the struct `out`, whose fields hold the defaults and keep what is not given.
 * Takes --name VALUE, --name=VALUE, -x VALUE, -xVALUE, -xyz for flags, and -- before arguments that
 * begin with a dash. The positional arguments are moved to argv[1..n]; argv[n + 1] is NULL.
 * Returns n, or -1 (what was allocated into `out` so far is released).
 */
RS_MUST_CHECK int rs_options_parse(const struct rs_option *options, int argc, char *argv[],
                                   void *out, struct rs_error *err);
/* Releases what parsing allocated; once more is harmless. */
void rs_options_fini(const struct rs_option *options, void *out);

/* Has no effect or is refused: help names it apart, completion does not offer it. */
bool rs_option_is_foreign(const struct rs_option *o);

/* True when --help or -h stands where an option may stand. Changes nothing. */
bool rs_options_want_help(const struct rs_option *options, int argc, char *argv[]);
