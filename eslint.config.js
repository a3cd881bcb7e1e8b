'use strict'

const neostandard = require('neostandard')

/** Methods that a stream overrides. */
const STREAM_METHODS = '(?:read|write|writev|final|destroy|construct)'
const PRIVATE = `/^_(?!${STREAM_METHODS}$)/`
const NODE_NAMES = '/^(?:onIncoming|kOn[A-Z]\\w*|maxHeaderPairs|getCurrentBuffer|useUserBuffer|readStart|readStop|writeQueueSize|maxRequestsOnConnectionReached|httpAllowHalfOpen|getOwnPropertySymbols)$/'

/** What only `lib/node/` and `lib/fastify/internals.ts` may name: the insides of Node and Fastify. */
const INTERNALS = [
  `MemberExpression > Identifier.property[name=${PRIVATE}]`,
  `Property > Identifier.key[name=${PRIVATE}]`,
  `TSPropertySignature > Identifier.key[name=${PRIVATE}]`,
  `Identifier[name=${NODE_NAMES}]`,
  'Literal[value=/^(?:bound |socketOn|kBuffer|fastify\\.(?!$))/]'
].map((selector) => ({ selector, message: 'Names from inside Node belong in lib/node/, those from inside Fastify in lib/fastify/internals.ts.' }))

/** What no pure room may use. */
const IMPURE = ['setTimeout', 'setInterval', 'setImmediate', 'queueMicrotask', 'process']
  .map((name) => ({ selector: `Identifier[name='${name}']`, message: 'lib/transfer/ and lib/items/ are pure: no timers, no sockets.' }))

module.exports = [
  ...neostandard({ ts: true, ignores: ['dist', 'example/build', 'bench/build', 'test/clients/.venv', 'test/fuzz/build', 'test/hunt/build', 'test/matrix/build', '.tap'] }),
  {
    files: ['lib/**/*.ts'],
    ignores: ['lib/node/**', 'lib/fastify/internals.ts'],
    rules: { 'no-restricted-syntax': ['error', ...INTERNALS] }
  },
  {
    files: ['lib/transfer/**/*.ts', 'lib/items/**/*.ts'],
    rules: { 'no-restricted-syntax': ['error', ...INTERNALS, ...IMPURE] }
  }
]
