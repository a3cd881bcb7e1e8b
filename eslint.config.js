'use strict'

module.exports = require('neostandard')({ ts: true, ignores: ['dist', 'example/build', 'bench/build', 'test/clients/.venv', 'test/fuzz/build', 'test/hunt/build', 'test/matrix/build', '.tap'] })
