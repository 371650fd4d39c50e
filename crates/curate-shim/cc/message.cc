// Errors as messages.
#include "shim.h"

#include <cstdlib>

extern "C" void curate_free_message(char *message) {
  if (message != curate::out_of_memory) free(message);
}
