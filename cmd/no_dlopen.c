/* A static executable loads no shared objects. SQLite and OpenSSL, which offer to load extensions, ask
 * this in place of dlopen (meson.build: --wrap), and the linker has nothing to warn of. */
#include <stddef.h>

void *__wrap_dlopen(const char *file, int mode);

void *__wrap_dlopen(const char *file, int mode)
{
    (void)file;
    (void)mode;
    return NULL;
}
