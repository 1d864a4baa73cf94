#include "cmd/verb.h"
#include "commit.h"

#include <ares.h>
#include <jansson.h>
#include <llhttp.h>
#include <microhttpd.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <yaml.h>

const char *rs_version(void)
{
    return RSERVE_VERSION;
}

const char *rs_commit(void)
{
    return RSERVE_COMMIT;
}

static int run_version(int argc, char *argv[], struct rs_error *err)
{
    if (rs_verb_parse(&rs_verb_version, argc, argv, NULL, err) < 0)
        return -1;
    printf("rserve %s\n", RSERVE_VERSION);
    printf("commit: %s\n", RSERVE_COMMIT);
    printf("build: %s\n", RSERVE_BUILDTYPE);
    printf("libraries: libmicrohttpd %s, jansson %s, libyaml %s, llhttp %d.%d.%d, c-ares %s, "
           "OpenSSL %s, SQLite %s\n",
           MHD_get_version(), jansson_version_str(), yaml_get_version_string(),
           LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH, ares_version(NULL),
           OpenSSL_version(OPENSSL_VERSION_STRING), sqlite3_libversion());
    return 0;
}

const struct rs_verb rs_verb_version = {
    .name = "version",
    .args = "",
    .summary = "print version, git commit, build type and library versions",
    .run = run_version,
};
