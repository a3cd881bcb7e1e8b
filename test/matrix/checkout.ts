// Copies the checkout, including uncommitted changes, and installs the newest dependencies, except those that the column
// sets.

import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { cp, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import type { Column } from './cells.ts'
import { MINUTE, npm, run } from './commands.ts'

const INSTALL_LIMIT = 10 * MINUTE
const BUILD_LIMIT = 5 * MINUTE

/** Packages that Nest pins but Fastify does not. The pins are lifted, so that npm installs what an app without Nest gets. */
const UNPINNED = { '@nestjs/platform-fastify': { 'find-my-way': '^9.0.0', 'light-my-request': '^6.0.0' } }

const REPORTED = ['fastify', 'find-my-way', 'light-my-request'] as const

export interface Checkout {
  directory: string
  /** The versions that were installed. */
  versions: Record<typeof REPORTED[number], string>
}

/** npm's error code for conflicting peer dependencies. */
const PEER_CONFLICT = 'ERESOLVE'

export async function checkOut ({ fastify, overrides }: Column, root: string): Promise<Checkout> {
  const directory = await mkdtemp(join(root, 'checkout-'))
  const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], { encoding: 'utf8' })
  for (const path of listed.split('\0')) {
    if (path !== '' && path !== 'package-lock.json' && existsSync(path)) await cp(path, join(directory, path))
  }
  const manifest = join(directory, 'package.json')
  const description = JSON.parse(await readFile(manifest, 'utf8'))
  description.devDependencies.fastify = fastify
  delete description.scripts.prepare // would fail at a compile error, which is only reported below
  // Some frameworks pin Fastify; they must use the same version, too.
  description.overrides = { ...description.overrides, ...UNPINNED, ...overrides, fastify: '$fastify' }
  await writeFile(manifest, JSON.stringify(description, null, 2))

  const install = ['install', '--no-package-lock', '--prefer-online', '--no-audit', '--no-fund', '--loglevel=error']
  let installed = await npm(install, { cwd: directory, limit: INSTALL_LIMIT })
  if (installed.code !== 0 && installed.printed.includes(PEER_CONFLICT)) {
    console.log(`Fastify ${fastify}: peer dependencies conflict, installing with --legacy-peer-deps:\n${indent(installed.printed, 8)}`)
    installed = await npm([...install, '--legacy-peer-deps'], { cwd: directory, limit: INSTALL_LIMIT })
  }
  if (installed.code !== 0) throw new Error(`npm install failed\n${indent(installed.printed, 20)}`)

  // A compile error is only reported: the compiler has written its output all the same.
  const built = await run(process.execPath, [join('node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json'], { cwd: directory, limit: BUILD_LIMIT })
  if (built.code !== 0) console.log(`Fastify ${fastify}: lib/ does not compile:\n${indent(built.printed, 8)}`)

  const requireFromFastify = createRequire(join(directory, 'node_modules/fastify/package.json'))
  const versions = REPORTED.map((name) => [name, JSON.parse(readFileSync(requireFromFastify.resolve(name === 'fastify' ? './package.json' : `${name}/package.json`), 'utf8')).version])
  return { directory, versions: Object.fromEntries(versions) }
}

export function indent (text: string, lines: number): string {
  return text.trim().split('\n').slice(0, lines).map((line) => `    ${line}`).join('\n')
}
