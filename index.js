'use strict'

// require('fastify-duplex') is the plugin itself; ESM and TypeScript find it by name as well.
const { fastifyDuplex } = require('./dist/index.js')

module.exports = fastifyDuplex
module.exports.default = fastifyDuplex
module.exports.fastifyDuplex = fastifyDuplex
