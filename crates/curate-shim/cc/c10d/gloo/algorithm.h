// Stands in for a header of gloo that the torch wheel does not ship. See c10d.cc.
#pragma once
