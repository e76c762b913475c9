"""From a scored batch to the next policy: minibatches, the two losses, the optimiser steps."""
