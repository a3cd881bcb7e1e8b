'use strict'

module.exports = require('neostandard')({ ts: true, ignores: ['dist', 'example/build', 'test/clients/.venv', '.tap'] })
