// Installs Node versions from the npm packages that contain its binaries.

import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { satisfies } from 'semver'
import { MINUTE, npm, run } from './commands.ts'

const INSTALL_LIMIT = 5 * MINUTE

export interface Node { path: string, version: string }

/** Installs a version or range. Without a package for this platform, the running Node is used, or null if its version does not match. */
export async function installNode (range: string, root: string): Promise<Node | null> {
  const directory = join(root, `node-${range}`)
  await mkdir(directory)
  const isWindows = process.platform === 'win32'
  const name = `node-${isWindows ? 'win' : process.platform}-${process.arch}`
  const { code } = await npm(['install', '--prefix', directory, '--no-save', '--no-package-lock', '--no-audit', '--no-fund', `${name}@${range}`], { cwd: directory, limit: INSTALL_LIMIT })
  const path = join(directory, 'node_modules', name, 'bin', isWindows ? 'node.exe' : 'node')
  if (code === 0) {
    // A binary for another C library than the system's does not start.
    const result = await run(path, ['--version'], { cwd: directory, limit: MINUTE }).catch(() => null)
    if (result?.code === 0) return { path, version: result.printed.trim().slice(1) }
  }
  if (satisfies(process.version, range)) {
    console.log(`${name}@${range} cannot be installed: using the running Node ${process.version}`)
    return { path: process.execPath, version: process.version.slice(1) }
  }
  console.log(`SKIPPED: ${name}@${range} cannot be installed, and the running Node is ${process.version}`)
  return null
}
