// `npm test`: runs tap, with the options that follow. On a terminal, tap shows its progress. Elsewhere only failures and a summary are
// printed, unless a reporter is asked for.

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { failures } from './failures.mjs'

const manifest = createRequire(import.meta.url).resolve('tap/package.json')
const { bin: { tap } } = JSON.parse(readFileSync(manifest, 'utf8'))
const options = process.argv.slice(2)
const isWatched = process.stdout.isTTY || options.some((option) => /^(-R|--reporter)/.test(option))

const child = spawn(process.execPath, [join(dirname(manifest), tap), ...(isWatched ? [] : ['--reporter=tap']), ...options], {
  stdio: ['inherit', isWatched ? 'inherit' : 'pipe', 'inherit']
})
child.on('close', (code) => { process.exitCode = code ?? 1 })
if (!isWatched) for await (const line of failures(createInterface({ input: child.stdout }))) console.log(line)
