/* rserve: the verb is found, run, and its outcome becomes the exit status. */
#include "cmd/verb.h"
#include "core/base/nearest.h"

#include <stdio.h>
#include <string.h>

static const char *const version_words[] = {"--version", "-V", NULL};
static const char *const help_words[] = {"--help", "-h", NULL};

static bool is_one_of(const char *word, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

static int unknown_verb(const char *word)
{
    struct rs_nearest near = rs_nearest_to(word);

    for (const struct rs_verb *const *v = rs_verbs; *v; v++)
        rs_nearest_offer(&near, (*v)->name);
    rs_nearest_offer(&near, "--help");
    rs_nearest_offer(&near, "--version");
    fprintf(stderr, "rserve: unknown %s '%s'; ", word[0] == '-' ? "option" : "verb", word);
    if (near.best)
        fprintf(stderr, "did you mean '%s'?\n", near.best);
    else
        fputs("'rserve --help' lists the verbs\n", stderr);
    return RS_EXIT_USAGE;
}

static int run_verb(const struct rs_verb *verb, int argc, char *argv[])
{
    struct rs_error err = {0};
    int r;

    if (!verb->raw_args && rs_options_want_help(verb->options, argc, argv)) {
        rs_help_print_verb(verb, stdout);
        return RS_EXIT_OK;
    }
    r = verb->run(argc, argv, &err);
    if (r >= 0)
        return r;
    fprintf(stderr, "rserve %s: %s\n", verb->name, err.msg);
    return err.code == RS_INVALID ? RS_EXIT_USAGE : RS_EXIT_FAILED;
}

int main(int argc, char *argv[])
{
    const struct rs_verb *verb;
    int status = RS_EXIT_OK;

    if (argc < 2) {
        rs_help_print(stderr);
        return RS_EXIT_USAGE;
    }
    if (is_one_of(argv[1], version_words))
        verb = &rs_verb_version;
    else
        verb = rs_verb_find(argv[1]);
    if (is_one_of(argv[1], help_words))
        rs_help_print(stdout);
    else if (verb)
        status = run_verb(verb, argc - 1, argv + 1);
    else
        status = unknown_verb(argv[1]);
    if (fflush(stdout) != 0 && status == RS_EXIT_OK) {
        perror("rserve: cannot write the output");
        status = RS_EXIT_FAILED;
    }
    return status;
}
