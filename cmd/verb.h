/* The verbs of the command line: `rserve VERB [OPTIONS] ARGS`.
 *
 * A verb may be a group: `rserve GROUP VERB [OPTIONS] ARGS`. The executable answers to the name of a
 * group as well (a link `serve` to it), so that `serve VERB ...` is the same.
 *
 * Each verb has a file NAME.c that defines `const struct rs_verb rs_verb_NAME` (options.h has a
 * whole example) and a line in the table of verb.c, from which dispatch, help and shell completion
 * come.
 */
#pragma once

#include "cmd/options.h"
#include "core/base/error.h"

#include <stdio.h>

enum rs_exit {
    RS_EXIT_OK = 0,
    RS_EXIT_FAILED = 1, /* what was asked for could not be done */
    RS_EXIT_USAGE = 2,  /* the command line or the configuration is wrong */
};

/* What a program that a group stands in for has, and the group has not. */
struct rs_verb_absent {
    const char *name;    /* NULL ends the list */
    const char *instead; /* what to do, one phrase */
};

struct rs_verb {
    const char *name;
    const char *args;       /* positional arguments as in the usage line; "" for none */
    const char *summary;    /* one phrase, no final dot */
    const char *details;    /* paragraphs below the options in `rserve help VERB`, or NULL */
    int min_args, max_args; /* positional ones; max_args -1: any number */
    const struct rs_option *options; /* ends with a NULL name; NULL for none */
    /* argv[0] is the verb; argv may be permuted. 0: done. -1: `err` says why; main prints it as one
     * line and exits with 2 for RS_INVALID, else 1. Positive: an exit status; all has been said.
     */
    int (*run)(int argc, char *argv[], struct rs_error *err);
    bool file_args; /* completion offers file names as arguments */
    bool raw_args;  /* what follows it is another program's: no --help is looked for in it */
    const char *of; /* the group it is in; NULL: none */

    /* A group: ends with NULL; then there are no options and no `run`. Else NULL. */
    const struct rs_verb *const *verbs;
    const struct rs_verb_absent *absent; /* a group's; NULL: none */
    const char *version;                 /* first line of `GROUP --version`; NULL: as rserve's */
};

/* In the order of --help, NULL at the end. */
extern const struct rs_verb *const rs_verbs[];
/* A verb of `group` (NULL: of rserve, also those that only programs call, which are not in rs_verbs).
 * NULL if there is none. */
const struct rs_verb *rs_verb_find(const struct rs_verb *group, const char *name);
/* "unknown verb 'rnu'; did you mean 'run'?" -1. `also` is one more word that would have done; NULL. */
int rs_verb_unknown(const struct rs_verb *group, const char *name, const char *also,
                    struct rs_error *err);
/* "rserve run" or "serve run"; fits 64 bytes. */
void rs_verb_title(const struct rs_verb *verb, char *buf, size_t size);

/* Parses the options of `verb` and checks the number of positional arguments. As rs_options_parse. */
RS_MUST_CHECK int rs_verb_parse(const struct rs_verb *verb, int argc, char *argv[], void *out,
                                struct rs_error *err);

extern const struct rs_verb rs_verb_completion;
extern const struct rs_verb rs_verb_control_plane;
extern const struct rs_verb rs_verb_head;
extern const struct rs_verb rs_verb_help;
extern const struct rs_verb rs_verb_install_links;
extern const struct rs_verb rs_verb_instance;
extern const struct rs_verb rs_verb_logs;
extern const struct rs_verb rs_verb_python;
extern const struct rs_verb rs_verb_ray;
extern const struct rs_verb rs_verb_run;
extern const struct rs_verb rs_verb_serve;
extern const struct rs_verb rs_verb_deploy;
extern const struct rs_verb rs_verb_delete;
extern const struct rs_verb rs_verb_status;
extern const struct rs_verb rs_verb_version;
extern const struct rs_verb rs_verb_worker;

void rs_help_print(FILE *out);
void rs_help_print_verb(const struct rs_verb *verb, FILE *out);
const char *rs_version(void); /* "0.1.0" */
const char *rs_commit(void);  /* git commit, "-dirty" when the tree was changed; or "unknown" */
